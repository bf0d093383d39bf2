"""Sees every change that this process makes to the file system, just before it is made, whoever makes it and in whichever thread.

Nothing of the program is replaced: Python announces ("audits") every opening, renaming, removal and creation by itself, and `os.fsync`,
which it does not, is wrapped. What only C++ code does stays unseen; our checkpoints are written by Python.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYNCHRONISE = "fsync"
READ = "read"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ONE_PATH = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.chmod": 2, "os.utime": 3}
"""Where their `dir_fd` stands among the arguments of the event."""
_TWO_PATHS = ("os.rename", "os.link", "os.symlink")


@dataclass(frozen=True)
class Change:
    """kind: "write" (opened for writing), "read" (opened for reading, no change), "fsync", "rename", "remove", "rmdir", "mkdir", ...

    target: the new name of what is renamed or linked; descriptor: of the file that is synchronised.
    """

    kind: str
    path: Path
    target: Path | None = None
    descriptor: int = -1

    def inside(self, directory: Path) -> bool:
        """Whether it happens in or below `directory`."""
        return self.path.is_relative_to(directory)

    def __str__(self) -> str:
        return f"{self.kind} {self.path.name}" + (f" -> {self.target.name}" if self.target else "")


See = Callable[[Change], None]


def watch_changes(see: See) -> None:
    """From now on call `see` before each change. There is no way back: for processes that a test has forked."""
    busy = threading.local()

    def tell(change: Change) -> None:
        if getattr(busy, "now", False):
            return  # `see` itself is at work
        busy.now = True
        try:
            see(change)
        finally:
            busy.now = False

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        change = _change(event, arguments)
        if change is not None:
            tell(change)

    for name in ("fsync", "fdatasync"):
        setattr(os, name, _announced(getattr(os, name), tell))
    sys.addaudithook(on_event)


def _announced(real: Callable[[int], None], tell: See) -> Callable[[Any], None]:
    def call(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        tell(Change(SYNCHRONISE, Path(os.readlink(f"/proc/self/fd/{descriptor}")), descriptor=descriptor))
        real(descriptor)

    return call


def _change(event: str, arguments: tuple[Any, ...]) -> Change | None:
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None  # a descriptor, whose opening was announced before
        return Change("write" if flags & _WRITING else READ, _absolute(path))
    if event in _ONE_PATH:
        return Change(event.removeprefix("os."), _absolute(arguments[0], arguments[_ONE_PATH[event]]))
    if event in _TWO_PATHS:
        at = (*arguments[2:], -1)  # of a symbolic link there is one
        return Change(event.removeprefix("os."), _absolute(arguments[0], at[0]), _absolute(arguments[1], at[1]))
    if event == "os.truncate":
        return Change("truncate", _absolute(arguments[0]))
    return None


def _absolute(path: Any, directory_descriptor: int = -1) -> Path:
    if isinstance(path, int):
        return Path(os.readlink(f"/proc/self/fd/{path}"))
    name = Path(os.fsdecode(path))
    if directory_descriptor >= 0 and not name.is_absolute():
        return Path(os.readlink(f"/proc/self/fd/{directory_descriptor}")) / name
    return Path.cwd() / name
