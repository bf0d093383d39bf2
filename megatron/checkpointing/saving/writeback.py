"""Has the kernel begin to write to the disk while a file is still being filled, so that little is left for its `fsync`."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

_START = 2  # SYNC_FILE_RANGE_WRITE: begin with the pages that are not being written yet, and wait for none


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Ask for these bytes of an open file to be on their way to the disk; nothing where the system cannot do so.

    A hint: whether they arrived is known by `fsync` alone, which tells of every failure since the file was opened.
    """
    if function := _sync_file_range():
        function(descriptor, offset, length, _START)


@functools.cache
def _sync_file_range() -> Callable[..., Any] | None:
    """Linux's `sync_file_range`, which Python does not offer."""
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError, TypeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function
