"""Python packages: which versions are installed, and which our requirements files name."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from megatron.doctor.facts.source import REPOSITORY

_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;#]+)")

NOT_OF_RUNS = ("requirements-dev.txt", "requirements-benchmark.txt")


@dataclass(frozen=True)
class Pin:
    """The version of a package that a file of `requirements/` names."""

    version: str
    file: str


def read_pins(folder: Path = REPOSITORY / "requirements") -> dict[str, Pin]:
    """What the requirements files name, by the package's normal name; those of tests and of benchmarks are left out. Of several, the file called after it counts."""
    pins: dict[str, Pin] = {}
    for path in sorted(folder.glob("*.txt")):
        if path.name in NOT_OF_RUNS:
            continue
        for line in path.read_text().splitlines():
            match = _PIN.match(line)
            if match:
                pins.setdefault(normal_name(match[1]), Pin(match[2], path.name))
    return pins


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed, by the names as given."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def normal_name(name: str) -> str:
    """As package indexes compare names: `comet_ml` and `Comet-ML` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def same_version(installed: str, pinned: str) -> bool:
    """Whether a version is the pinned one; the part after a plus, which names a build (`2.13.0+cu130`), does not count."""
    return installed.partition("+")[0] == pinned.partition("+")[0]
