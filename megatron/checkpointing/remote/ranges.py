"""A part of an object in a store as a file: fetched by ranges, so that a rank reads what it wants of a file and no more."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from megatron.checkpointing.remote.objects import object_of
from megatron.checkpointing.remote.retry import retried

WINDOW_BYTES = 1 << 26


class RangeFile(io.RawIOBase):
    """`length` bytes of an object from `offset` on. Up to WINDOW_BYTES come by one request; of more, so many are held at a time.

    Requests are retried; their last error is raised (OSError, or one of the store's library).
    """

    def __init__(self, path: Path, offset: int, length: int) -> None:
        super().__init__()
        self.name = str(path)
        self._object = object_of(path)
        self._offset = offset
        self._length = length
        self._position = 0
        self._window: tuple[int, memoryview] | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a byte of the part; nothing is fetched."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer as far as the part goes."""
        view = memoryview(buffer).cast("B")
        done, wanted = 0, max(0, min(len(view), self._length - self._position))
        while done < wanted:
            part = self._from(self._position)[: wanted - done]
            view[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return wanted

    def _from(self, position: int) -> memoryview:
        """What is held from a position on, of the window that the position lies in."""
        start = position // WINDOW_BYTES * WINDOW_BYTES
        if self._window is None or self._window[0] != start:
            self._window = None  # let go of the one before the next is fetched
            self._window = (start, retried(lambda: self._fetch(start, min(start + WINDOW_BYTES, self._length))))
        return self._window[1][position - start :]

    def _fetch(self, start: int, end: int) -> memoryview:
        content = self._object.read(self._offset + start, self._offset + end)
        if len(content) != end - start:
            raise OSError(f"{len(content)} bytes came where {end - start} were asked for")
        return memoryview(content)
