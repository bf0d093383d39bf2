"""Directories on their way in or out (`.tmp-...`): who they belong to, and when they are rubbish.

The name says which process made it. A crash leaves them behind; a later save removes them, but never those of a job that is
still at work in the same directory.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from megatron.atomic import sync_directory
from megatron.checkpointing.files import (
    TEMPORARY_PREFIX,
    host_name,
    remove_tree,
    rename_durably,
    temporary_path,
)
from megatron.checkpointing.layout import REPLACED_PREFIX
from megatron.environment import process_start

IDLE_SECONDS = 3600.0
CLOCK_SECONDS = 5.0
"""How far the clock of a file system may be behind this machine's."""
_OWNER = re.compile(r"@(?P<host>.+)@(?P<pid>\d+)@[0-9a-f]+$")

_ours: set[str] = set()
"""Names, which are like no other, of what threads of this process are at work on."""


def discard(path: Path) -> None:
    """Delete a checkpoint so that it is never seen half deleted; of several processes that try at once, one does it.

    Raises OSError when it cannot even be renamed.
    """
    doomed = temporary_path(path.parent, path.name)
    try:
        os.rename(path, doomed)
    except FileNotFoundError:
        return
    sync_directory(path.parent)  # or a power failure could undo the renaming and not the deleting
    remove_tree(doomed)
    sync_directory(path.parent)


def claim(path: Path) -> Path:
    """`path`, which from now on belongs to a thread of this process that is at work on it."""
    _ours.add(path.name)
    return path


def release(path: Path) -> None:
    """Nobody in this process is at work on it any more."""
    _ours.discard(path.name)


def clean_directory(directory: Path) -> None:
    """Remove what dead runs left behind, and put back a checkpoint that one of them had set aside to replace."""
    for path in directory.iterdir():
        if path.name.startswith(REPLACED_PREFIX):
            original = directory / path.name.removeprefix(REPLACED_PREFIX)
            if original.exists():
                discard(path)
            else:
                rename_durably(path, original)
        elif path.name.startswith(TEMPORARY_PREFIX) and is_abandoned(path):
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)


def is_abandoned(path: Path) -> bool:
    """Whether no living process is at work on this temporary: its maker on this host is gone, or nothing was written for an hour.

    One that an earlier process made which had our number is abandoned, unless a thread of ours has claimed it.
    """
    if path.name in _ours:
        return False
    if maker_is_gone(path):
        return True
    try:
        newest = max(entry.stat().st_mtime for entry in (path, *path.glob("*")))
    except (FileNotFoundError, NotADirectoryError):
        return False  # its owner has just finished with it
    return time.time() - newest > IDLE_SECONDS or _number_is_reused(path, newest)


def maker_is_gone(path: Path) -> bool:
    """Whether this host's process that made a temporary has ended; no other host's processes are known."""
    owner = _OWNER.search(path.name)
    if path.name in _ours or not owner or owner["host"] != host_name():
        return False
    pid = int(owner["pid"])
    return pid == os.getpid() or not _is_running(pid)


def _number_is_reused(path: Path, written_at: float) -> bool:
    """Whether the process of this host that has its maker's number now was started after a temporary was written last.

    So it is where the processes of a container get the same numbers each time.
    """
    owner = _OWNER.search(path.name)
    if not owner or owner["host"] != host_name():
        return False
    started_at = process_start(int(owner["pid"]))
    return started_at is not None and started_at > written_at + CLOCK_SECONDS


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
