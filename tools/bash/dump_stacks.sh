#!/usr/bin/env bash
# Shows where every rank (and every process it has started) is in its Python code, on all hosts, and disturbs none: for runs that hang.
# It needs py-spy there, and the right to look into processes (CAP_SYS_PTRACE in a container).
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=hosts.sh
source "$here/hosts.sh"

usage="usage: dump_stacks.sh [-H HOSTFILE] [-d DIRECTORY]
  -H HOSTFILE   the hosts, one a line; default: the file that DLTS_HOSTFILE names, else this machine only
  -d DIRECTORY  only runs that were started in this directory; default: all of this user's
Exit status: 0 every stack was shown; 1 one is missing, or a host could not be reached; 2 the command line is wrong."

hostfile="" directory=""
while (($#)); do
    case $1 in
        -H | -d) (($# > 1)) || fail "$1 needs a value"$'\n'"$usage" ;;&
        -H) hostfile=$2 && shift 2 ;;
        -d) directory=$(readlink -m "$2") && shift 2 ;;
        -h | --help) echo "$usage" && exit 0 ;;
        *) fail "\"$1\" is no option"$'\n'"$usage" ;;
    esac
done
hosts=$(list_hosts "$hostfile")
on_all_hosts "$hosts" "$(cat "$here/processes.sh" "$here/dump_here.sh")" "$directory" "$(readlink -m "$here/../../.venv/bin")"
