"""What the variables of a Slurm allocation say: its machines, and how many processes are to run on each.

Names and meaning of the variables: the manual pages of srun and sbatch.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping

from megatron.environment import expand_slurm_counts
from megatron.errors import LaunchError

NODE_VARIABLE = "SLURM_JOB_NODELIST"
_GPU_COUNTS = ("SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE")
_GPU_LISTS = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
_ITEM = re.compile(r"\d+(-\d+)?")


def allocated_nodes(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The machines of the allocation that we are in, none outside. Raises LaunchError for a list that cannot be read."""
    text = environment.get(NODE_VARIABLE, "") if "SLURM_JOB_ID" in environment else ""
    return expand_node_list(text)


def tasks_of_step(environment: Mapping[str, str]) -> int:
    """How many copies of this process srun has started; 1 for the shell of sbatch or salloc."""
    text = environment.get("SLURM_STEP_NUM_TASKS", "1") if "SLURM_STEP_ID" in environment else "1"
    return int(text) if text.isdigit() else 1


def expand_node_list(text: str) -> tuple[str, ...]:
    """The names of a node list: `gpu[03-05,12],r[1-2]n[1-2]` -> gpu03 gpu04 gpu05 gpu12 r1n1 r1n2 r2n1 r2n2. Raises LaunchError."""
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if ",".join(parts) != text:
        raise _unreadable(text)
    return tuple(name for part in parts for name in _names(part, text))


def slots_of_nodes(environment: Mapping[str, str], nodes: int, devices: Callable[[], int]) -> list[int]:
    """Processes on each of the machines: one a GPU that Slurm has given or that is seen here, else one a task that was asked for, else 1.

    devices: counts the accelerators of this machine, which stands for all.
    """
    if environment.get("CUDA_VISIBLE_DEVICES") != "":  # which asks for the CPU
        gpus = _gpus_per_node(environment) or devices()
        if gpus:
            return [gpus] * nodes
    asked = "SLURM_NTASKS" in environment or "SLURM_NTASKS_PER_NODE" in environment  # else it counts cores
    counts = expand_slurm_counts(environment.get("SLURM_TASKS_PER_NODE", "")) if asked else []
    return counts if len(counts) == nodes else [1] * nodes


def _gpus_per_node(environment: Mapping[str, str]) -> int:
    """From a count (`4`, `a100:4`, `a100:2,h100:2`) or a list (`0,1,2,3`); 0 when there is none."""
    for name in _GPU_COUNTS:
        counts = [part.rpartition(":")[2] for part in environment.get(name, "").split(",")]
        if all(count.isdigit() for count in counts):
            return sum(map(int, counts))
    lists = [environment[name] for name in _GPU_LISTS if environment.get(name)]
    return len(lists[0].split(",")) if lists else 0


def _names(part: str, text: str) -> Iterator[str]:
    """The names that one part of a list stands for; `text` is the whole list, for the message."""
    pieces = re.split(r"\[(.*?)\]", part)  # fixed text and numbers take turns
    choices = [list(_numbers(piece, text)) if turn % 2 else [piece] for turn, piece in enumerate(pieces)]
    return map("".join, itertools.product(*choices))


def _numbers(piece: str, text: str) -> Iterator[str]:
    for item in piece.split(","):
        if not _ITEM.fullmatch(item):
            raise _unreadable(text)
        first, _, last = item.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield str(number).zfill(len(first))


def _unreadable(text: str) -> LaunchError:
    return LaunchError(
        f'{NODE_VARIABLE} is "{text}", which is no node list: set hostfile to a file with `HOST slots=N` lines instead'
    )
