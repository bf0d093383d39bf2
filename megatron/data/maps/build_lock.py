"""One process builds a file and the others wait for it, with a lock of the operating system that dies with its process.

The lock only saves work, nothing depends on it for being right: where the file system has no locks, or whoever holds one does not get
done, the others go on without.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from megatron.log import get_logger

LONGEST_WAIT = 1800.0  # seconds
_PAUSE = 0.1  # seconds

log = get_logger(__name__)


@contextlib.contextmanager
def build_lock(path: Path) -> Iterator[None]:
    """Hold the lock `path` in this block, after waiting for the process that does; the file is gone afterwards.

    A file that a killed process left behind is no lock. Raises OSError where `path` cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        _acquire(file, path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _acquire(file: BinaryIO, path: Path) -> None:
    began = time.monotonic()
    told = False
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
        except OSError:  # no locks on this file system
            return None
        if waited > LONGEST_WAIT:
            log.warning("%s: another process has been building this for %d s; building it here as well", path, waited)
            return None
        if not told:
            log.info("waiting for another process that builds %s", path.with_suffix(""))
            told = True
        time.sleep(_PAUSE)
