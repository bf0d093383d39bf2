"""One run at a time saves into a directory: a lock on SAVE/.lock, which says who holds it.

It is a POSIX record lock: forked processes do not inherit it, and the kernel takes it back at the end of the process, also after
`kill -9`. One trap comes with it: a process loses the lock when it closes the file, whichever descriptor of it. So the file is opened
once here and by nothing else, and stays open until the process ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from megatron.checkpointing.saving.owner import Owner
from megatron.errors import CheckpointError
from megatron.log import get_logger

logger = get_logger(__name__)

LOCK = ".lock"
PATIENCE_SECONDS = 5.0
"""How long to wait for a run that is just ending: one that was killed holds its files until its memory is given back."""

_TAKEN = (errno.EACCES, errno.EAGAIN)
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@dataclass(frozen=True)
class _Held:
    """An open lock file, and the process that locked it: a forked one has the descriptor, but not the lock."""

    descriptor: int
    pid: int


_held: list[_Held] = []


def hold(directory: Path, *, patience_seconds: float | None = None) -> None:
    """Keep other runs from saving into a directory until this process ends; does nothing where this process keeps them off already.

    Waits for a run that is just ending, by default PATIENCE_SECONDS. Raises CheckpointError that names the run which saves there;
    OSError when no file can be written there. On a file system that has no locks it is a warning.
    """
    path = directory / LOCK
    if _is_held(path):
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, directory, PATIENCE_SECONDS if patience_seconds is None else patience_seconds)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, Owner.this_process().content(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    _held.append(_Held(descriptor, os.getpid()))


def _is_held(path: Path) -> bool:
    """Whether this process has locked the file, which must not be opened to find out."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = (os.fstat(held.descriptor) for held in _held if held.pid == os.getpid())
    return any(os.path.samestat(there, other) for other in mine)


def _lock(descriptor: int, directory: Path, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                logger.warning(
                    "%s lies on a file system without locks (%s): nothing keeps two runs from saving there at the same time",
                    directory,
                    error.strerror,
                )
                return
            if error.errno not in _TAKEN:
                raise
            if time.monotonic() >= deadline:
                raise CheckpointError(
                    f'another run saves into {directory} now: {_holder(descriptor)}. Stop it, or give this run a "save" of its own'
                ) from None
        time.sleep(0.05)


def _holder(descriptor: int) -> str:
    """Who holds the lock, as its file says."""
    return str(Owner.read(os.pread(descriptor, 4096, 0)) or f"{LOCK} in it does not say which")
