"""The note beside prepared files: what they were made from and how large they are, so that a later call knows them for ready."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron.atomic import atomic_file

FILE_NAME = "prepared.json"


@dataclass(frozen=True)
class Note:
    """`request` is everything the files depend on, `sizes` the bytes of each file by its name in the directory."""

    request: dict[str, Any]
    sizes: dict[str, int]
    vocab_size: int
    documents: int
    text_bytes: int
    tokens: int


def read_note(directory: Path) -> Note | None:
    """The note of a directory; None when there is none, it is of another version, or a file it lists is missing or changed in size."""
    try:
        note = Note(**json.loads((directory / FILE_NAME).read_bytes()))
        intact = all((directory / name).stat().st_size == size for name, size in note.sizes.items())
    except (OSError, ValueError, TypeError):
        return None
    return note if intact else None


def write_note(directory: Path, note: Note) -> None:
    """Write the note, whole or not at all."""
    with atomic_file(directory / FILE_NAME) as file:
        file.write(json.dumps(asdict(note), indent=2).encode("utf-8"))


def remove_note(directory: Path) -> None:
    """Say that the files of the directory are no longer known to belong together."""
    (directory / FILE_NAME).unlink(missing_ok=True)


def sizes_of(paths: Sequence[Path]) -> dict[str, int]:
    """The bytes of each file, by name."""
    return {path.name: path.stat().st_size for path in paths}
