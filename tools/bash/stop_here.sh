# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # the text of processes.sh stands before this one's
# What stop_all.sh does on each host, given GRACE NOW DIRECTORY. Exits with 1 when something is left.
grace=$1 now=$2 directory=$3

# count_all: sets total and described
count_all() {
    total=$((${#fronts[@]} + ${#agents[@]} + ${#ranks[@]}))
    described="${#fronts[@]} deepy.py, ${#agents[@]} agents, ${#ranks[@]} processes of ranks"
}

find_processes
count_all
if ((total == 0)); then
    echo "nothing was running"
    exit 0
fi
found=$described
SECONDS=0
if ((grace > 0)); then
    # Ranks get it from their agent; those that have lost theirs get it from here.
    polite=("${fronts[@]}" "${agents[@]}")
    ((${#agents[@]})) || polite+=("${ranks[@]}")
    kill -TERM "${polite[@]}" 2> /dev/null
    while ((total > 0 && SECONDS < grace)); do
        sleep 0.2
        find_processes
        count_all
    done
fi
how=stopped
if [[ $now == yes ]]; then
    for _ in {1..50}; do # again, because a process may have started another one meanwhile
        ((total > 0)) || break
        how=killed
        kill -KILL "${fronts[@]}" "${agents[@]}" "${ranks[@]}" 2> /dev/null
        sleep 0.1
        find_processes
        count_all
    done
fi
if ((total == 0)); then
    echo "$how $found in $SECONDS s"
    exit 0
fi
echo "found $found; after $SECONDS s there are still $described (process ids ${fronts[*]} ${agents[*]} ${ranks[*]})"
exit 1
