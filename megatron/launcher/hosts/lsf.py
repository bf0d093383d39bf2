"""What the variables of an LSF allocation say about its machines.

LSB_MCPU_HOSTS has names and numbers of slots in turn; where it is missing, LSB_DJOB_HOSTFILE names a file with a line a slot (IBM, LSF's
reference of environment variables).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from megatron.errors import LaunchError


def allocated_hosts(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The machines for the processes of the allocation that we are in, none outside. Raises LaunchError for what cannot be read.

    A first machine of one slot beside larger ones is the one that runs the job script, and takes no processes.
    """
    counts = _slots_by_name(environment) if "LSB_JOBID" in environment else {}
    names = tuple(counts)
    runs_the_script = len(names) > 1 and counts[names[0]] == 1 and min(counts[name] for name in names[1:]) > 1
    return names[1:] if runs_the_script else names


def _slots_by_name(environment: Mapping[str, str]) -> dict[str, int]:
    words = environment.get("LSB_MCPU_HOSTS", "").split()
    if len(words) % 2 or not all(word.isdigit() for word in words[1::2]):
        raise LaunchError(
            f'LSB_MCPU_HOSTS is "{" ".join(words)}", which is no list of `HOST SLOTS`: set hostfile to a file with `HOST slots=N` lines instead'
        )
    if words:
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))
    path = environment.get("LSB_DJOB_HOSTFILE", "")
    try:
        return dict(Counter(Path(path).read_text().split())) if path else {}
    except OSError as error:
        raise LaunchError(
            f'the file "{path}", which LSB_DJOB_HOSTFILE names, cannot be read ({error.strerror}): set hostfile instead'
        ) from None
