"""Cuts hosts by the keys `include` and `exclude`, in DeepSpeed's notation.

A filter names machines, with or without device numbers: `worker-1@worker-2:0,2` is all of worker-1 and devices 0 and 2 of worker-2.
"""

from __future__ import annotations

from collections.abc import Sequence

from megatron.launcher.base import Host
from megatron.neox_arguments.conflict import Conflict
from megatron.registry import did_you_mean


def include_hosts(hosts: Sequence[Host], text: str) -> tuple[Host, ...]:
    """Only the hosts and slots that `text` names, in the order of the hostfile."""
    chosen = _read_filter(hosts, text, key="include")
    return tuple(Host(host.name, chosen[host.name] or host.slots) for host in hosts if host.name in chosen)


def exclude_hosts(hosts: Sequence[Host], text: str) -> tuple[Host, ...]:
    """The hosts without those that `text` names, or without the slots it names of them. Raises Conflict when none is left."""
    left_out = _read_filter(hosts, text, key="exclude")
    kept = []
    for host in hosts:
        excluded = (left_out[host.name] or host.slots) if host.name in left_out else ()
        slots = tuple(slot for slot in host.slots if slot not in excluded)
        if slots:
            kept.append(Host(host.name, slots))
    if not kept:
        raise Conflict(("exclude",), f"this leaves no host; exclude fewer of {_names(hosts)}")
    return tuple(kept)


def _read_filter(hosts: Sequence[Host], text: str, *, key: str) -> dict[str, tuple[int, ...]]:
    """Slots by host name; an empty tuple stands for all slots of the host."""
    slots_of = {host.name: host.slots for host in hosts}
    chosen: dict[str, tuple[int, ...]] = {}
    for part in text.split("@"):
        name, colon, numbers = part.strip().partition(":")
        if name not in slots_of:
            raise Conflict((key,), _unknown_host(part, name, hosts))
        if name in chosen:
            raise Conflict((key,), f'host "{name}" is named twice; write its devices together, such as {name}:0,1')
        chosen[name] = _read_slots(numbers, slots_of[name], key=key, host=name) if colon else ()
    return chosen


def _unknown_host(part: str, name: str, hosts: Sequence[Host]) -> str:
    names = [host.name for host in hosts]
    if " " in part.strip():
        return f'hosts are separated by "@"; write {"@".join(part.split())}'
    return f'there is no host "{name.strip()}"; choose among {_names(hosts)}{did_you_mean(name, names)}'


def _read_slots(numbers: str, present: tuple[int, ...], *, key: str, host: str) -> tuple[int, ...]:
    slots = []
    for number in map(str.strip, numbers.split(",")):
        if not number.isdigit() or int(number) not in present:
            raise Conflict(
                (key,), f'host "{host}" has no device "{number}"; choose among {", ".join(map(str, present))}'
            )
        slots.append(int(number))
    return tuple(sorted(set(slots)))


def _names(hosts: Sequence[Host]) -> str:
    return ", ".join(host.name for host in hosts)
