"""Cases of the golden tests: broken configurations under `errors/`, each with the text that a user sees.

A case is one of

* NAME.yml, put on top of the legal `errors/base.yml`
* NAME.words, a command line (leading NAME=VALUE words are environment variables)
* NAME/, a folder with files of its own and the command line in `NAME/words`

with NAME.txt beside it, which is what `deepy.py` prints.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ERRORS = Path(__file__).resolve().parent / "errors"


@dataclass(frozen=True)
class Case:
    """One broken configuration. name: its path below `errors`, without suffix; directory: where the command is given."""

    name: str
    directory: Path
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    golden: Path

    @property
    def expected(self) -> str:
        """The text; empty for a new case, whose text is not written yet."""
        return "" if not self.golden.exists() else self.golden.read_text(encoding="utf-8")

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the case: a machine without accelerators and hosts, unless it says otherwise."""
        removed = ("DLTS_HOSTFILE", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
        kept = {name: value for name, value in os.environ.items() if name not in removed}
        return {**kept, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100", **dict(self.environment)}


def find_cases() -> list[Case]:
    """Every case, in the order of their names."""
    return sorted([*_file_cases(), *_command_cases()], key=lambda case: case.name)


def _file_cases() -> Iterator[Case]:
    for config in ERRORS.glob("*/*.yml"):
        words = ("train.py", os.path.relpath(ERRORS / "base.yml", config.parent), config.name, "--dry-run")
        yield Case(_name(config.with_suffix("")), config.parent, words, (), config.with_suffix(".txt"))


def _command_cases() -> Iterator[Case]:
    for file in [*ERRORS.glob("*/*.words"), *ERRORS.glob("*/*/words")]:
        words = shlex.split(file.read_text(encoding="utf-8"))
        environment = []
        while words and words[0].partition("=")[0].isupper():
            name, _, value = words.pop(0).partition("=")
            environment.append((name, value))
        given = (*words, "--dry-run") if words else ()
        path = file.parent if file.name == "words" else file.with_suffix("")
        yield Case(_name(path), file.parent, given, tuple(environment), path.with_suffix(".txt"))


def _name(path: Path) -> str:
    return path.relative_to(ERRORS).as_posix()
