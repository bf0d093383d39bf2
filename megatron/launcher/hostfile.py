"""Reads a hostfile and the include/exclude filters, both in DeepSpeed's notation.

A hostfile has one machine a line, `worker-1 slots=8`; `#` starts a comment. A filter names machines, with or without device
numbers: `worker-1@worker-2:0,2` is all of worker-1 and devices 0 and 2 of worker-2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.errors import ConfigError
from megatron.launcher.base import Host
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.reading.excerpt import excerpt
from megatron.neox_arguments.reading.values import ConfigFile, Origin
from megatron.registry import did_you_mean

_PARTS = re.compile(r"(?P<name>\S+)(\s+(?P<setting>slots\s*=\s*(?P<slots>\S+)))?(\s+(?P<rest>\S.*))?")


@dataclass(frozen=True)
class _Mistake:
    """What is wrong with a line, and which characters of it, counted from 0."""

    sentence: str
    start: int
    end: int


def read_hostfile(path: str | Path, *, named_by: str = "hostfile") -> tuple[Host, ...]:
    """The hosts of a hostfile, in its order. named_by: the key or variable that holds the path. Raises ConfigError with file:line:column for every line that is not understood."""
    file = _read(path, named_by)
    hosts: dict[str, Host] = {}
    origins: dict[str, Origin] = {}
    problems = []
    for number, line in enumerate(file.text.splitlines(), start=1):
        content = line.partition("#")[0].rstrip()
        if not content.strip():
            continue
        mistake = _find_mistake(content, origins)
        name = content.split()[0]
        if mistake is None:
            hosts[name] = _read_host(content)
        else:
            origin = Origin(file.path, number, mistake.start + 1, mistake.end - mistake.start)
            places = [origins[name], origin] if name in origins else [origin]
            problems.append(f"{origin}: {mistake.sentence}{excerpt([file], places)}")
        origins.setdefault(name, Origin(file.path, number, content.index(name) + 1, len(name)))
    if not hosts and not problems:
        problems.append(
            f'the hostfile "{file.path}" names no host; add `HOST slots=N` lines, such as `worker-1 slots=8`'
        )
    if problems:
        raise ConfigError(problems)
    return tuple(hosts.values())


def _read(path: str | Path, named_by: str) -> ConfigFile:
    wanted = f"set {named_by} to a file with `HOST slots=N` lines"
    try:
        return ConfigFile(str(path), Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError([f'the hostfile "{path}" is not text: {wanted}']) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([f'the hostfile "{path}" cannot be read ({reason}): {wanted}']) from None


def _read_host(content: str) -> Host:
    name, slots = re.split(r"\s+slots\s*=\s*", content.strip())
    return Host(name, tuple(range(int(slots))))


def _find_mistake(content: str, seen: Mapping[str, Origin]) -> _Mistake | None:
    """Why a line is not the next host, None when it is."""
    parts = _PARTS.fullmatch(content.lstrip())
    assert parts is not None, "a line with content has a first word"
    indent = len(content) - len(content.lstrip())

    def at(group: str, sentence: str) -> _Mistake:
        return _Mistake(sentence, parts.start(group) + indent, parts.end(group) + indent)

    name, slots = parts["name"], parts["slots"]
    if name.startswith("slots="):
        return at("name", "the name of the host is missing; write `HOST slots=N`")
    if slots is None and parts["rest"]:
        return at("rest", f'expected the number of devices; write "{name} slots=N" with a number for N')
    if slots is None:
        return at("name", f'the number of devices of this host is missing; write "{name} slots=N"')
    if not (slots.isascii() and slots.isdigit() and len(slots) <= 4):
        return at("slots", f'"{slots}" is no number of devices; write up to four digits, such as slots=8')
    if parts["rest"]:
        return at("rest", f'nothing can follow the slots; remove "{parts["rest"]}"')
    if name in seen:
        return at("name", f'host "{name}" is already listed at {seen[name]}; keep one line with all its slots')
    if int(slots) == 0:
        return at("setting", f'host "{name}" has no slots; remove the line, or give it at least one')
    return None


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
