"""Shards put together, in order, into one `.bin` and `.idx`, while later shards are still being written.

A shard is removed once its tokens are in the growing file and on the disk. So at every moment its tokens are in its own file, or at their
place in the growing one, or in both; after a kill, appending all shards again copies those that are still there and steps over the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.atomic import atomic_file
from megatron.data.encoding.shard import bin_of, sizes_of
from megatron.data.index_file import HEADER, MAGIC, VERSION, code_of
from megatron.errors import DataError

FLUSH_BYTES = 1 << 30
COPY_BYTES = 1 << 24
SIZES = 1 << 20  # document sizes at a time: memory stays flat


class Assembly:
    """One output under construction in `directory`: the one of that number."""

    def __init__(self, directory: Path, output: int, dtype: np.dtype[Any]) -> None:
        self.bin = directory / f"{output}.bin"
        self.idx = directory / f"{output}.idx"
        self.tokens = 0
        self._directory, self._output, self._dtype = directory, output, dtype
        self._file = os.open(self.bin, os.O_RDWR | os.O_CREAT, 0o666)
        self._copied = list[Path]()
        self._unflushed = 0

    def append(self, number: int, tokens: int) -> None:
        """Add the shard of a piece. Raises DataError when its tokens are in neither place."""
        shard = bin_of(self._directory, number, self._output)
        offset, size = self.tokens * self._dtype.itemsize, tokens * self._dtype.itemsize
        if shard.exists() and shard.stat().st_size == size:
            _copy(shard, self._file, offset)
            self._copied.append(shard)
            self._unflushed += size
        elif os.fstat(self._file).st_size < offset + size:
            raise DataError(
                f"{shard} is missing or incomplete: {self._directory} was changed by something else; run again without --resume."
            )
        self.tokens += tokens
        if self._unflushed >= FLUSH_BYTES:
            self._flush()

    def finish(self, pieces: int) -> None:
        """All shards are in: complete the file and write its index."""
        os.ftruncate(self._file, self.tokens * self._dtype.itemsize)
        self._flush()
        shards = [sizes_of(self._directory, number, self._output) for number in range(pieces)]
        _write_index(self.idx, shards, self._dtype)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _flush(self) -> None:
        os.fsync(self._file)
        for shard in self._copied:
            shard.unlink(missing_ok=True)
        self._copied, self._unflushed = [], 0


def _copy(source: Path, destination: int, offset: int) -> None:
    """The bytes of a file into another one, from `offset` on, without passing through this process where the system can do that."""
    with open(source, "rb", buffering=0) as file:
        done, size = 0, os.fstat(file.fileno()).st_size
        try:
            while done < size and hasattr(os, "copy_file_range"):
                done += os.copy_file_range(file.fileno(), destination, size - done, done, offset + done)
        except OSError:  # not on this file system; what fails for another reason fails again below
            pass
        while done < size:
            done += os.pwrite(destination, os.pread(file.fileno(), COPY_BYTES, done), offset + done)


def _write_index(path: Path, shards: Sequence[Path], dtype: np.dtype[Any]) -> None:
    """The index of documents of one sequence each, as `index_file.write_index` writes it, but a part at a time."""
    documents = sum(shard.stat().st_size for shard in shards) // 4
    with atomic_file(path) as file:
        file.write(HEADER.pack(MAGIC, VERSION, code_of(dtype), documents, documents + 1))
        for sizes in _read_sizes(shards):
            file.write(sizes.data)
        start = 0
        for sizes in _read_sizes(shards):
            ends = start + np.cumsum(sizes, dtype="<i8") * dtype.itemsize
            file.write((ends - sizes.astype("<i8") * dtype.itemsize).data)
            start = int(ends[-1])
        for begin in range(0, documents + 1, SIZES):
            file.write(np.arange(begin, min(begin + SIZES, documents + 1), dtype="<i8").data)


def _read_sizes(shards: Sequence[Path]) -> Iterator[NDArray[np.int32]]:
    for shard in shards:
        with open(shard, "rb") as file:
            while data := file.read(4 * SIZES):
                yield np.frombuffer(data, "<i4")
