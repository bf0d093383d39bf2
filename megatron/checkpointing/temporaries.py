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

IDLE_SECONDS = 3600.0
_OWNER = re.compile(r"@(?P<host>.+)@(?P<pid>\d+)@[0-9a-f]+$")


def discard(path: Path) -> None:
    """Delete a checkpoint so that it is never seen half deleted; of several processes that try at once, one does it.

    Raises OSError when it cannot even be renamed.
    """
    doomed = temporary_path(path.parent, path.name)
    try:
        os.rename(path, doomed)
    except FileNotFoundError:
        return
    remove_tree(doomed)
    sync_directory(path.parent)


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
    """Whether no living process is at work on this temporary: its maker on this host is gone, or nothing was written for an hour."""
    owner = _OWNER.search(path.name)
    if owner and owner["host"] == host_name():
        pid = int(owner["pid"])
        if pid == os.getpid() or not _is_running(pid):
            return True
    try:
        newest = max(entry.stat().st_mtime for entry in (path, *path.glob("*")))
    except (FileNotFoundError, NotADirectoryError):
        return False  # its owner has just finished with it
    return time.time() - newest > IDLE_SECONDS


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
