"""Folders: whether they can be written, and the space that is left where they lie."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """What is known of a folder that is there, or can be made. free_bytes: for this user; problem: why it cannot be written, empty if it can."""

    path: str
    exists: bool
    free_bytes: int
    total_bytes: int
    problem: str = ""


def look_at_folder(path: str | Path) -> Disk:
    """The state of a folder; where there is none, of the nearest one above, in which it would be made."""
    folder = Path(path).absolute()
    above = folder
    try:
        above = next(place for place in (folder, *folder.parents) if place.exists())
        usage = shutil.disk_usage(above)
    except OSError as error:  # nobody may look there, the name is too long, the server of the file system is gone
        return Disk(str(folder), False, 0, 0, f"{above} cannot be looked at ({error.strerror})")
    return Disk(str(folder), above == folder, usage.free, usage.total, _problem(folder, above))


def _problem(folder: Path, above: Path) -> str:
    if not above.is_dir():
        return f"{above} is no folder"
    if not os.access(above, os.W_OK | os.X_OK):
        return (
            f"{above} cannot be written by this user"
            if above == folder
            else f"it cannot be made in {above}, which this user cannot write"
        )
    return ""
