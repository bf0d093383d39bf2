"""Reads a hostfile and the include/exclude filters, both in DeepSpeed's notation.

A hostfile has one machine a line, `worker-1 slots=8`; `#` starts a comment. A filter names machines, with or without device
numbers: `worker-1@worker-2:0,2` is all of worker-1 and devices 0 and 2 of worker-2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from megatron.errors import LaunchError
from megatron.launcher.base import Host
from megatron.registry import did_you_mean

_LINE = re.compile(r"(?P<name>\S+)\s+slots\s*=\s*(?P<slots>\d+)")


def read_hostfile(path: str | Path) -> tuple[Host, ...]:
    """The hosts of a hostfile, in its order. Raises LaunchError with file:line for every line that is not understood."""
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise LaunchError(
            f'the hostfile "{path}" cannot be read ({error.strerror}): give the path of a file with `HOST slots=N` lines'
        ) from None
    hosts: dict[str, Host] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        match = _LINE.fullmatch(content)
        if not content:
            continue
        if match is None:
            problems.append(
                f'{path}:{number}: "{content}" is not a host: write `HOST slots=N`, e.g. `worker-1 slots=8`'
            )
        elif match["name"] in hosts:
            problems.append(
                f'{path}:{number}: host "{match["name"]}" is listed a second time: give each host one line with all its slots'
            )
        elif int(match["slots"]) == 0:
            problems.append(
                f'{path}:{number}: host "{match["name"]}" has no slots: remove the line, or give it at least one'
            )
        else:
            hosts[match["name"]] = Host(match["name"], tuple(range(int(match["slots"]))))
    if not hosts and not problems:
        problems.append(f"{path}: the hostfile names no host: add `HOST slots=N` lines")
    if problems:
        raise LaunchError("\n".join(problems))
    return tuple(hosts.values())


def include_hosts(hosts: Sequence[Host], text: str) -> tuple[Host, ...]:
    """Only the hosts and slots that `text` names, in the order of the hostfile."""
    chosen = _read_filter(hosts, text, key="include")
    return tuple(Host(host.name, chosen[host.name] or host.slots) for host in hosts if host.name in chosen)


def exclude_hosts(hosts: Sequence[Host], text: str) -> tuple[Host, ...]:
    """The hosts without those that `text` names, or without the slots it names of them. Raises LaunchError when none is left."""
    left_out = _read_filter(hosts, text, key="exclude")
    kept = []
    for host in hosts:
        excluded = (left_out[host.name] or host.slots) if host.name in left_out else ()
        slots = tuple(slot for slot in host.slots if slot not in excluded)
        if slots:
            kept.append(Host(host.name, slots))
    if not kept:
        raise LaunchError(f'"exclude" is "{text}", which leaves no host: exclude fewer of {_names(hosts)}')
    return tuple(kept)


def _read_filter(hosts: Sequence[Host], text: str, *, key: str) -> dict[str, tuple[int, ...]]:
    """Slots by host name; an empty tuple stands for all slots of the host."""
    slots_of = {host.name: host.slots for host in hosts}
    chosen: dict[str, tuple[int, ...]] = {}
    for part in text.replace(" ", "").split("@"):
        name, colon, numbers = part.partition(":")
        if name not in slots_of:
            raise LaunchError(
                f'"{key}" is "{text}", but there is no host "{name}": the hosts are {_names(hosts)}{did_you_mean(name, list(slots_of))}'
            )
        if name in chosen:
            raise LaunchError(f'"{key}" is "{text}", which names host "{name}" twice: join its slots, e.g. {name}:0,1')
        chosen[name] = _read_slots(numbers, slots_of[name], where=f'"{key}" is "{text}"', host=name) if colon else ()
    return chosen


def _read_slots(numbers: str, present: tuple[int, ...], *, where: str, host: str) -> tuple[int, ...]:
    slots = []
    for number in numbers.split(","):
        if not number.isdigit() or int(number) not in present:
            raise LaunchError(
                f'{where}, but host "{host}" has no slot "{number}": it has {", ".join(map(str, present))}'
            )
        slots.append(int(number))
    return tuple(sorted(set(slots)))


def _names(hosts: Sequence[Host]) -> str:
    return ", ".join(host.name for host in hosts)
