# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # the text of processes.sh stands before this one's
# What dump_stacks.sh does on each host, given DIRECTORY and the folder of the Python that runs the job. Exits with 1 when a stack is missing.
directory=$1
PATH=$2:$PATH

find_processes
if ((${#ranks[@]} == 0)); then
    echo "no rank was running"
    exit 0
fi
if ! type -P py-spy > /dev/null; then
    echo "py-spy is not installed: pip install py-spy, or let a hung run tell it by itself (step_timeout)"
    exit 1
fi
missing=0
for process in "${ranks[@]}"; do
    mapfile -d '' -t variables 2> /dev/null < "/proc/$process/environ" || continue
    for variable in "${variables[@]}"; do
        [[ $variable != RANK=* ]] || echo "rank ${variable#RANK=}"
    done
    py-spy dump --pid "$process" || missing=1
done
exit "$missing"
