#!/usr/bin/env bash
# Runs one command on all hosts at the same time, in the directory it is called in: run_on_hosts.sh -H hostfile nvidia-smi -L
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=hosts.sh
source "$here/hosts.sh"

usage="usage: run_on_hosts.sh [-H HOSTFILE] COMMAND [WORD...]
  -H HOSTFILE   the hosts, one a line; default: the file that DLTS_HOSTFILE names, else this machine only
  COMMAND       one word alone is a line for a shell: run_on_hosts.sh 'df -h . | tail -1'
Exit status: 0 the command succeeded on every host; 1 it failed on one, or a host could not be reached; 2 the command line is wrong."

hostfile=""
case ${1:-} in
    -H) (($# > 1)) || fail "-H needs a value"$'\n'"$usage"
        hostfile=$2
        shift 2 ;;
    -h | --help) echo "$usage" && exit 0 ;;
    -*) fail "\"$1\" is no option"$'\n'"$usage" ;;
esac
(($#)) || fail "there is no command"$'\n'"$usage"
hosts=$(list_hosts "$hostfile")
line=$([[ $# -eq 1 ]] && echo "$1" || printf '%q ' "$@")
# shellcheck disable=SC2016  # it is expanded over there
on_all_hosts "$hosts" 'cd "$1" || exit 1; bash -c "$2" < /dev/null' "$PWD" "$line"
