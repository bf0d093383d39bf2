"""Compressed files as streams of bytes: .gz, .zst, .xz and .bz2, of one or several members or frames.

A file that ends in the middle raises; nothing is lost in silence.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, cast

from megatron.data.inputs.span import DamagedFile
from megatron.errors import MissingRequirement

BUFFER_BYTES = 1 << 18
READ_BYTES = 1 << 16
DAMAGE = (DamagedFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def open_decompressed(stream: IO[bytes], compression: str, *, name: str) -> io.BufferedReader:
    """The contents of a stream. compression: a suffix of `OPENERS`; name: for messages.

    Raises MissingRequirement when a package is missing; reading raises one of `DAMAGE` or an OSError where the data are damaged.
    """
    return OPENERS[compression](stream, name)


def is_damage(error: Exception) -> bool:
    """Whether an error says that the contents are damaged, rather than that the disk or the network failed."""
    if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        return error.errno is None  # bz2 raises a bare OSError for invalid data
    # zstandard's error cannot be named here, as the package may not be installed.
    return isinstance(error, DAMAGE) or type(error).__name__ == "ZstdError"


def _buffered(raw: Any) -> io.BufferedReader:
    return io.BufferedReader(raw, BUFFER_BYTES)


def _zstandard(stream: IO[bytes], name: str) -> io.BufferedReader:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise MissingRequirement(
            f'{name} needs the package "zstandard": pip install -r requirements/requirements-preprocessing.txt'
        ) from None
    return _buffered(_ZstandardStream(stream, zstandard.ZstdDecompressor().decompressobj))


class _ZstandardStream(io.RawIOBase):
    """The package's own reader takes a file that ends inside a frame for a complete one; this one raises EOFError."""

    def __init__(self, stream: IO[bytes], new_frame: Callable[[], Any]) -> None:
        self._stream = stream
        self._new_frame = new_frame
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._compressed:
                self._compressed = self._stream.read(READ_BYTES)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the file ends inside a zstandard frame")
                return 0
            self._decompress()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self) -> None:
        if self._frame is None:
            self._frame = self._new_frame()
        self._ready = memoryview(self._frame.decompress(self._compressed))
        self._compressed = b""
        if self._frame.eof:
            self._compressed, self._frame = self._frame.unused_data, None


OPENERS: dict[str, Callable[[IO[bytes], str], io.BufferedReader]] = {
    "": lambda stream, name: cast(io.BufferedReader, stream),
    ".gz": lambda stream, name: _buffered(gzip.GzipFile(fileobj=stream)),
    ".zst": _zstandard,
    ".xz": lambda stream, name: _buffered(lzma.LZMAFile(stream)),  # noqa: SIM115 - the caller owns the stream
    ".bz2": lambda stream, name: _buffered(bz2.BZ2File(stream)),
}
