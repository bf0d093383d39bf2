"""Which slots of the machines that are left a smaller run takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from megatron.launcher.base import Host


def choose_slots(left: Sequence[Host], processes: int, *, tensor: int, context: int) -> tuple[Host, ...]:
    """The first `processes` slots of the hosts, or fewer on some hosts where that tears fewer tensor and context groups apart.

    tensor, context: sizes of the groups, whose ranks are neighbours (`megatron.mpu.topology`). There must be as many slots.
    """
    choices = [_first_slots(left, processes, whole) for whole in (1, tensor, tensor * context)]
    enough = [hosts for hosts in choices if count_slots(hosts) == processes]
    return min(enough, key=lambda hosts: (_torn(hosts, tensor), _torn(hosts, tensor * context)))


def count_slots(hosts: Sequence[Host]) -> int:
    """Slots of all hosts together."""
    return sum(len(host.slots) for host in hosts)


def _first_slots(left: Sequence[Host], processes: int, whole: int) -> tuple[Host, ...]:
    """Up to `processes` slots, on each host a multiple of `whole`."""
    used: list[Host] = []
    for host in left:
        slots = min(len(host.slots) // whole * whole, processes - count_slots(used))
        used += [Host(host.name, host.slots[:slots])] if slots else []
    return tuple(used)


def _torn(hosts: Sequence[Host], size: int) -> int:
    """How many machines end within a group of `size` neighbouring ranks."""
    return sum(1 for end in accumulate(len(host.slots) for host in hosts) if end % size)
