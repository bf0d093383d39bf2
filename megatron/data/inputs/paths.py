"""Which files a user means: comma lists of files, directories and globs, in an order that depends on the names alone."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.data.inputs.compression import OPENERS
from megatron.data.inputs.formats import SUFFIXES, format_of
from megatron.errors import DataError


@dataclass(frozen=True)
class Inputs:
    """`files` in the order they are read; `left_out` were found in directories or by globs and are of no known format."""

    files: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()


def split_commas(text: str) -> list[str]:
    """The parts of a comma list; a name that holds a comma and exists is one part."""
    if os.path.exists(text):
        return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def find_inputs(words: Sequence[str | Path]) -> Inputs:
    """The files that `words` name: each a file, a directory (searched through, names that begin with a dot left aside, as is unfinished output) or a glob.

    The order is that of the words; within a directory or a glob it is that of the paths, part by part. Raises one DataError that
    tells every word that names nothing, and every file named outright that is of no known format.
    """
    files, left_out, problems = list[Path](), list[Path](), list[str]()
    for word in map(str, words):
        if os.path.isdir(word):
            found = _in_directory(word)
        elif os.path.exists(word):
            found = [Path(word)]
            if format_of(word) is None:
                problems.append(f"the input {word} is of an unknown kind: its name must end in {_known()}.")
        elif glob.has_magic(word):
            found = [
                path
                for path in _in_order(glob.iglob(word, recursive=True))
                if path.is_file() and not _is_work(path) and not _is_origins(path)
            ]
        else:
            problems.append(f"the input {word} does not exist.")
            continue
        known = [path for path in found if format_of(path.name) is not None]
        if not known and not os.path.isfile(word):
            problems.append(f"the input {word} holds no file of a known kind: their names end in {_known()}.")
        files += known
        left_out += [path for path in found if format_of(path.name) is None]
    if not words:
        problems.append("there is no input: give at least one file.")
    if problems:
        raise DataError("\n".join(problems))
    return Inputs(tuple(files), tuple(left_out))


def _in_directory(directory: str) -> list[Path]:
    found = list[str]()
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if not name.startswith(".") and not _is_work(Path(name))]
        found += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return [path for path in _in_order(found) if not _is_origins(path)]


def _is_work(path: Path) -> bool:
    """Whether a path leads into the directory of an unfinished encoding, which may lie beside the inputs (see encoding/work.py)."""
    return any(part.endswith(".partial") for part in path.parts)


def _is_origins(path: Path) -> bool:
    """Whether a file belongs to a dataset that lies beside the inputs: the one that says where its documents came from (see origins.py)."""
    return path.name.endswith(".sources.json") and path.with_suffix("").with_suffix(".idx").exists()


def _in_order(paths: Iterable[str]) -> list[Path]:
    return sorted(map(Path, paths), key=lambda path: path.parts)


def _known() -> str:
    return f"{', '.join(SUFFIXES)}, some of them followed by {', '.join(filter(None, OPENERS))}"
