"""Files that are written here to be looked for on other machines: whether a folder is the same one there."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

PREFIX = ".deepy-doctor-"


@contextlib.contextmanager
def marks_in(folders: Mapping[str, str]) -> Iterator[dict[str, tuple[str, str]]]:
    """By key, a file in each folder and what it holds; the files are gone afterwards. A folder that is not there yet is judged by the one
    in which it would be made. One that cannot be written is left out: that is a finding of its own.
    """
    marks: dict[str, tuple[str, str]] = {}
    try:
        for key, folder in folders.items():
            wanted = Path(folder).absolute()
            with contextlib.suppress(OSError):
                above = next(place for place in (wanted, *wanted.parents) if place.is_dir())
                path, content = above / f"{PREFIX}{secrets.token_hex(8)}", secrets.token_hex(16)
                path.write_text(content)
                marks[key] = (str(path), content)
        yield marks
    finally:
        for written, _ in marks.values():
            with contextlib.suppress(OSError):
                Path(written).unlink()
