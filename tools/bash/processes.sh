# shellcheck shell=bash
# Functions that find what deepy.py has started on this machine; stop_all.sh and dump_stacks.sh send them to every host.
# A process counts when it is this user's, runs in `directory` (empty: anywhere) and is one of these:
#   front  python [OPTION...] [PATH/]deepy.py SCRIPT.py ...
#   agent  python -m megatron.launcher.agent ...
#   rank   what an agent has started, and what that has started in turn: NEOX_JOB is in their environment

directory=""
fronts=()
agents=()
ranks=()

# find_processes: fills fronts, agents and ranks with process ids. Starts no process for most that it looks at.
find_processes() {
    local process kind
    fronts=() agents=() ranks=()
    for process in /proc/[0-9]*; do
        [[ -O $process ]] || continue
        kind=""
        find_kind "$process" 2> /dev/null
        [[ -n $kind ]] || continue
        [[ -z $directory || "$(readlink "$process/cwd")" == "$directory" ]] || continue
        case $kind in
            front) fronts+=("${process#/proc/}") ;;
            agent) agents+=("${process#/proc/}") ;;
            rank) ranks+=("${process#/proc/}") ;;
        esac
    done
}

# find_kind /proc/ID: sets kind
find_kind() {
    local words=() variables=() IFS=$'\n'
    mapfile -d '' -t variables < "$1/environ"
    if [[ $'\n'"${variables[*]}" == *$'\n'NEOX_JOB=* ]]; then
        kind=rank
        return
    fi
    mapfile -d '' -t words < "$1/cmdline"
    [[ ${words[0]##*/} == python* ]] || return
    set -- "${words[@]:1}"
    while [[ ${1:-} == -* && $1 != -m ]]; do
        [[ $1 != -[XW] ]] || shift
        shift
    done
    if [[ ${1:-} == -m && ${2:-} == megatron.launcher.agent ]]; then
        kind=agent
    elif [[ ${1##*/} == deepy.py && $'\n'"${*:2}"$'\n' == *.py$'\n'* ]]; then
        kind=front
    fi
}
