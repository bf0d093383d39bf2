"""What a job does when machines are lost: others take their places, or fewer go on (`elastic`), or the same are tried again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from megatron.launcher.base import Host
from megatron.launcher.elastic import smaller_run
from megatron.launcher.hosts.slots import count_slots
from megatron.launcher.hosts.spares import replace_lost
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues


@dataclass(frozen=True)
class FirstAttempt:
    """A job as it began: what was written, what followed from that, its hosts in the order of their ranks, and others that stand by."""

    values: ConfigValues
    args: NeoXArgs
    hosts: tuple[Host, ...]
    spares: tuple[Host, ...] = ()


@dataclass(frozen=True)
class NextAttempt:
    """A job as it goes on. notes: what to tell the user, a line each."""

    values: ConfigValues
    args: NeoXArgs
    hosts: tuple[Host, ...]
    notes: tuple[str, ...]


def next_attempt(first: FirstAttempt, lost: Collection[str]) -> NextAttempt:
    """How the job goes on. lost: names of all machines that it has lost since it began.

    Where nothing is left at all, the network is gone rather than every machine, so an elastic run, too, tries the same again. Raises
    LaunchError when it has too little left for a copy of the model, and ConfigError when the smaller run is not a legal one.
    """
    replaced = replace_lost(first.hosts, first.spares, lost)
    if not replaced.missing:
        return NextAttempt(first.values, first.args, replaced.hosts, replaced.notes)
    left = [*(host for host in replaced.hosts if host.name not in replaced.missing), *replaced.spares]
    if not first.args.elastic or not left:
        again = f"nothing is left to take the place of {' and '.join(replaced.missing)}: the same again"
        hint = "" if first.args.elastic or not left else " (elastic: true would go on without)"
        return NextAttempt(first.values, first.args, replaced.hosts, (*replaced.notes, again + hint))
    smaller = smaller_run(first.values, first.args, first.hosts, left)
    args = NeoXArgs.from_values(smaller.values, world_size=count_slots(smaller.hosts))
    return NextAttempt(smaller.values, args, smaller.hosts, (*replaced.notes, smaller.note))
