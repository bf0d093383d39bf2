"""Reads a hostfile in DeepSpeed's notation: one machine a line, `worker-1 slots=8`; `#` starts a comment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from megatron.errors import ConfigError
from megatron.launcher.base import Host
from megatron.neox_arguments.reading.excerpt import excerpt
from megatron.neox_arguments.reading.values import ConfigFile, Origin

_PARTS = re.compile(r"(?P<name>\S+)(\s+(?P<setting>slots\s*=\s*(?P<slots>\S+)))?(\s+(?P<rest>\S.*))?")


@dataclass(frozen=True)
class _Mistake:
    """What is wrong with a line, and which characters of it, counted from 0."""

    sentence: str
    start: int
    end: int


def read_hostfile(path: str | Path, *, named_by: str = "hostfile") -> tuple[Host, ...]:
    """The hosts of a hostfile, in its order. named_by: the key or variable that holds the path.

    Raises ConfigError with file:line:column for every line that is not understood.
    """
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
    if Path(path).exists() and not Path(path).is_file():
        raise ConfigError([f'the hostfile "{path}" is a folder, a pipe or a device: {wanted}'])
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
