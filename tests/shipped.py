"""The configurations in `configs/`: their names, the files each is meant to be combined with, and what they say is not built yet.

The comments at the head of a file that are read here are described in `tests/unit/test_configs.py`.
"""

from __future__ import annotations

import re

from megatron.neox_arguments.reading.load import read_ymls
from megatron.neox_arguments.reading.values import ConfigValues
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs"
SHIPPED = sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yml"))
"""Every file, as `pythia/70M`."""

_WITHOUT_COMPANIONS = {"local_setup": ("python_10M",), "text_generation": ("python_10M", "local_setup")}
"""Fragments whose header tells in a command line what they are combined with."""


def companions(name: str) -> tuple[str, ...]:
    """What the comment `# Combine with: FILE...` names, without `configs/` and `.yml`."""
    files = re.findall(r"configs/([\w./-]+)\.yml", "\n".join(_comments(name, "Combine with")))
    return tuple(files) or _WITHOUT_COMPANIONS.get(name, ())


def read_shipped(name: str) -> ConfigValues:
    """The values of a file among its companions, the model first, as on a command line."""
    return _read(name, *companions(name)) if is_model(name) else _read(*companions(name), name)


def read_alone(name: str) -> ConfigValues:
    """The values of a model's file by itself; a fragment is nothing without its companions."""
    return _read(name) if is_model(name) else read_shipped(name)


def is_model(name: str) -> bool:
    """Whether a file holds an architecture."""
    return "num_layers" in _read(name).values


def marked_not_built(name: str) -> frozenset[str]:
    """The features that the comment `# Not built yet: FEATURE; FEATURE.` of a file names."""
    return frozenset(feature for text in _comments(name, "Not built yet") for feature in text.rstrip(".").split("; "))


def _read(*names: str) -> ConfigValues:
    return read_ymls([str(CONFIGS / f"{name}.yml") for name in names])


def _comments(name: str, title: str) -> list[str]:
    text = (CONFIGS / f"{name}.yml").read_text(encoding="utf-8")
    return re.findall(rf"^\s*# {title}: (.+)$", text, re.MULTILINE)
