#!/usr/bin/env bash
# Stops what deepy.py has started on all hosts: all runs of this user, or those of one directory.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=hosts.sh
source "$here/hosts.sh"

usage="usage: stop_all.sh [-H HOSTFILE] [-d DIRECTORY] [-g SECONDS] [--now]
  -H HOSTFILE   the hosts, one a line; default: the file that DLTS_HOSTFILE names, else this machine only
  -d DIRECTORY  only what was started in this directory; default: all of this user's
  -g SECONDS    how long runs may take to save and exit after SIGTERM (130; 0 with --now)
  --now         kill (SIGKILL) what is there then; what was not saved is lost
Exit status: 0 nothing is left on any host; 1 something is, or a host could not be reached; 2 the command line is wrong."

hostfile="" directory="" grace="" now=no
while (($#)); do
    case $1 in
        -H | -d | -g) (($# > 1)) || fail "$1 needs a value"$'\n'"$usage" ;;&
        -H) hostfile=$2 && shift 2 ;;
        -d) directory=$2 && shift 2 ;;
        -g) grace=$2 && shift 2 ;;
        --now) now=yes && shift ;;
        -h | --help) echo "$usage" && exit 0 ;;
        *) fail "\"$1\" is no option"$'\n'"$usage" ;;
    esac
done
if [[ -z $grace ]]; then
    grace=$([[ $now == yes ]] && echo 0 || echo 130)
fi
[[ $grace =~ ^[0-9]{1,6}$ ]] || fail "-g is \"$grace\": expected a whole number of seconds"
[[ $now == yes || $grace -gt 0 ]] || fail "-g is 0: without --now runs need time to save; give them some, or add --now"
if [[ -n $directory ]]; then
    directory=$(readlink -m "$directory")
fi
hosts=$(list_hosts "$hostfile")
on_all_hosts "$hosts" "$(cat "$here/processes.sh" "$here/stop_here.sh")" "$grace" "$now" "$directory"
