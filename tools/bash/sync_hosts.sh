#!/usr/bin/env bash
# Copies this repository and its .venv to the other hosts, to the same place, so that all of them run the same code; for clusters without a
# shared file system. What git ignores (data, runs) stays here, and what lies there of it stays there.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=hosts.sh
source "$here/hosts.sh"

usage="usage: sync_hosts.sh [-H HOSTFILE] [-t DIRECTORY] [-n]
  -H HOSTFILE   the hosts, one a line; default: the file that DLTS_HOSTFILE names
  -t DIRECTORY  where to, on the other hosts; default: where the repository is on this one, which a .venv needs
  -n            only show what would be copied and deleted
Exit status: 0 every host has this code; 1 one has not; 2 the command line is wrong."

repository=$(readlink -m "$here/../..")
hostfile="" target=$repository options=()
while (($#)); do
    case $1 in
        -H | -t) (($# > 1)) || fail "$1 needs a value"$'\n'"$usage" ;;&
        -H) hostfile=$2 && shift 2 ;;
        -t) target=$2 && shift 2 ;;
        -n) options+=(--dry-run --itemize-changes) && shift ;;
        -h | --help) echo "$usage" && exit 0 ;;
        *) fail "\"$1\" is no option"$'\n'"$usage" ;;
    esac
done
type -P rsync > /dev/null || fail "rsync is not installed: install it here and on every host"
hosts=$(list_hosts "$hostfile")
failed=0
while read -r host; do
    is_this_machine "$host" && continue
    if rsync --archive --delete --compress "${options[@]}" \
        --include='/.venv/***' --exclude=/.git --exclude-from="$repository/.gitignore" \
        --rsh='ssh -o BatchMode=yes -o ConnectTimeout=10' "$repository/" "$host:$target/"; then
        echo "$host: $target is up to date"
    else
        echo "$host: could not be brought up to date (rsync's reason stands above)" >&2
        failed=1
    fi
done <<< "$hosts"
exit "$failed"
