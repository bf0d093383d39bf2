"""Machines that stand by: hosts beyond `num_nodes` take the places of those that are lost, rank for rank."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from megatron.launcher.base import Host
from megatron.launcher.devices import count_devices
from megatron.launcher.hosts.resolve import listed_hosts
from megatron.neox_arguments.keys.runner import RunnerArgs


@dataclass(frozen=True)
class Replaced:
    """hosts: of the run in the order of their ranks, lost ones replaced; missing: names of those among them that nothing replaces;
    spares: those left; notes: what to tell the user, a line each."""

    hosts: tuple[Host, ...]
    missing: tuple[str, ...]
    spares: tuple[Host, ...]
    notes: tuple[str, ...]


def resolve_spares(
    args: RunnerArgs, *, environment: Mapping[str, str] | None = None, devices: Callable[[], int] = count_devices
) -> tuple[Host, ...]:
    """The hosts beyond `num_nodes`, with up to `num_gpus` slots; none where a run is never started again. Arguments and errors as of `resolve_hosts`."""
    if not args.max_restarts or args.num_nodes < 1:
        return ()
    hosts = listed_hosts(args, environment=environment, devices=devices)[args.num_nodes :]
    return tuple(Host(host.name, host.slots[: args.num_gpus]) for host in hosts)


def replace_lost(hosts: Sequence[Host], spares: Sequence[Host], lost: Collection[str]) -> Replaced:
    """Put the first spare with enough slots in the place of each host that is lost (by name), on as many slots. A lost spare is none."""
    kept, missing, notes = [], [], []
    waiting = [spare for spare in spares if spare.name not in lost]
    for host in hosts:
        spare = next((spare for spare in waiting if len(spare.slots) >= len(host.slots)), None)
        if host.name not in lost:
            kept.append(host)
        elif spare is not None:
            waiting.remove(spare)
            kept.append(Host(spare.name, spare.slots[: len(host.slots)]))
            notes.append(f"{spare.name} takes the place of {host.name}")
        else:
            kept.append(host)
            missing.append(host.name)
            notes += [_too_small(spare, host) for spare in waiting]
    return Replaced(tuple(kept), tuple(missing), tuple(waiting), tuple(notes))


def _too_small(spare: Host, host: Host) -> str:
    count = f"{len(spare.slots)} slot{'s' if len(spare.slots) > 1 else ''}"
    return f"{spare.name} cannot take the place of {host.name}: it has {count}, {host.name} has {len(host.slots)}"
