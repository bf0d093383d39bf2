"""Whether we are in an allocation of a scheduler, and which machines it has given us."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from megatron.launcher.base import Host
from megatron.launcher.hosts import lsf, slurm

ALLOCATION_VARIABLES = ("SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID")


@dataclass(frozen=True)
class Allocation:
    """The machines of an allocation with their slots, and the variable that names them."""

    hosts: tuple[Host, ...]
    source: str


def inside_allocation(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler has started us, whom MPI programs then ask to start processes elsewhere."""
    return any(name in environment for name in ALLOCATION_VARIABLES)


def find_allocation(
    environment: Mapping[str, str], *, num_gpus: int | None, devices: Callable[[], int]
) -> Allocation | None:
    """The machines that Slurm or LSF has given us; None outside an allocation.

    num_gpus: slots of each, None to count them; devices: counts the accelerators of this machine. Raises LaunchError for variables that
    cannot be read.
    """
    nodes = slurm.allocated_nodes(environment)
    if nodes:
        slots = [num_gpus] * len(nodes) if num_gpus else slurm.slots_of_nodes(environment, len(nodes), devices)
        return Allocation(_hosts(nodes, slots), slurm.NODE_VARIABLE)
    names = lsf.allocated_hosts(environment)
    if names:
        return Allocation(_hosts(names, [num_gpus or devices() or 1] * len(names)), "LSB_MCPU_HOSTS")
    return None


def _hosts(names: tuple[str, ...], slots: list[int]) -> tuple[Host, ...]:
    return tuple(Host(name, tuple(range(count))) for name, count in zip(names, slots, strict=True))
