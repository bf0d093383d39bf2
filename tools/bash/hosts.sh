# shellcheck shell=bash
# Functions for the scripts beside it, which source it: the hosts of a hostfile, and a script on all of them at the same time.

# fail SENTENCE: one clear sentence, and exit status 2
fail() {
    echo "error: $1" >&2
    exit 2
}

# list_hosts [HOSTFILE]: one host a line, as deepy.py reads it; without a file the one that DLTS_HOSTFILE names, else this machine
list_hosts() {
    local file=${1:-${DLTS_HOSTFILE:-}} hosts
    if [[ -z $file ]]; then
        echo localhost
        return
    fi
    [[ -r $file && ! -d $file ]] || fail "the hostfile \"$file\" cannot be read: give a file with \`HOST slots=N\` lines"
    hosts=$(sed 's/#.*//' "$file" | awk 'NF { print $1 }')
    [[ -n $hosts ]] || fail "the hostfile \"$file\" names no host; add \`HOST slots=N\` lines"
    echo "$hosts"
}

# is_this_machine HOST
is_this_machine() {
    [[ $1 == localhost || $1 == 127.0.0.1 || $1 == "$(uname -n)" || $1 == "$(uname -n | cut -d. -f1)" ]]
}

# on_host HOST TEXT ARGUMENT...: runs a script there with the arguments; its text travels, so no file of ours is needed there
on_host() {
    local host=$1 text=$2 words=""
    shift 2
    if is_this_machine "$host"; then
        bash -s -- "$@" <<< "$text"
    else
        [[ $# -eq 0 ]] || words=$(printf ' %q' "$@") # ssh hands one line to a shell over there
        ssh -o BatchMode=yes -o ConnectTimeout=10 "$host" "bash -s --$words" <<< "$text"
    fi
}

# mark_lines HOST: its input, each line after "HOST: "; a last line gets its end, too
mark_lines() {
    local line
    while IFS= read -r line || [[ -n $line ]]; do
        printf '%s: %s\n' "$1" "$line"
    done
}

# on_all_hosts HOSTS TEXT ARGUMENT...: the same on every host (one a line) at once; "HOST: " stands before each line of output.
# Returns 0 when it succeeded on all of them, else 1; hosts that could not be reached are named.
on_all_hosts() {
    local hosts=$1 host job jobs=() failed=0
    shift
    while read -r host; do
        (
            set -o pipefail
            status=0
            on_host "$host" "$@" 2>&1 | mark_lines "$host" || status=$?
            if ((status == 255)); then # ssh's own
                echo "$host: could not be reached by ssh" >&2
            fi
            exit "$status"
        ) &
        jobs+=($!)
    done <<< "$hosts"
    for job in "${jobs[@]}"; do
        wait "$job" || failed=1
    done
    return "$failed"
}
