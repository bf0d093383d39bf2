"""What a disk holds after a power failure: of what was not synchronised, any part may be lost.

A file's content survives by `fsync` of the file, its name by `fsync` of the directory it is in. This model keeps what was synchronised
and makes directories as they may be found afterwards; inodes stand for files and directories, whose names change.
"""

from __future__ import annotations

import os
import random
from pathlib import Path


class Disk:
    """A directory tree; all that is in it at the beginning is on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._number = root.stat().st_ino
        self._names: dict[int, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        self._pins: list[int] = []  # for as long as this process lives
        for path in _tree(root).values():
            self.synchronise(path)

    def synchronise(self, path: Path) -> None:
        """`fsync` of a file or a directory."""
        number = path.stat().st_ino
        self._pins.append(os.open(path, os.O_RDONLY))  # or its number would be given to another file once it is deleted
        if path.is_dir():
            self._names[number] = _names(path)
        else:
            self._contents[number] = path.read_bytes()

    def fail(self, target: Path, dice: random.Random | None = None) -> Path:
        """Make `target` what is left of the tree if the power fails now; the path given back.

        Without dice nothing has reached the disk but what was synchronised; with dice each directory and each file is found as it was
        then or as it is now, a file also cut or zeroed.
        """
        self._restore(self._number, target, _tree(self._root), dice)
        return target

    def _restore(self, number: int, target: Path, living: dict[int, Path], dice: random.Random | None) -> None:
        path = living.get(number)
        if number in self._names or (path is not None and path.is_dir()):
            names = self._names.get(number, {})
            if dice and dice.random() < 0.5:
                names = {} if path is None else _names(path)  # one that was deleted had been emptied before
            target.mkdir()
            for name, inner in names.items():
                self._restore(inner, target / name, living, dice)
        else:
            target.write_bytes(self._content(number, path, dice))

    def _content(self, number: int, path: Path | None, dice: random.Random | None) -> bytes:
        synchronised = self._contents.get(number, b"")
        now = synchronised if path is None else path.read_bytes()
        if dice is None or now == synchronised:
            return synchronised
        return dice.choice([synchronised, now, now[: len(now) // 2], bytes(len(now))])


def _tree(root: Path) -> dict[int, Path]:
    """Everything below and with `root`, by inode."""
    return {path.stat().st_ino: path for path in (root, *root.rglob("*"))}


def _names(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in directory.iterdir()}
