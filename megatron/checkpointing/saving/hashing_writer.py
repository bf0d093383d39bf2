"""Writes the files of torch.distributed.checkpoint (their format: loading/chunk_reader.py), hashed while they are written.

Writing costs little more than the disk does: several files at once, each by a thread that writes a block and hashes it while it is
still in the processor's cache; the disk works meanwhile; nothing is copied that lies contiguous on the CPU.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import io
import itertools
import math
import os
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.serialization import get_crc32_options, set_crc32_options

from megatron.checkpointing.balance import balanced
from megatron.checkpointing.files import FileFacts
from megatron.checkpointing.manifest import TENSOR_SUFFIX
from megatron.checkpointing.saving.background import in_background
from megatron.checkpointing.saving.writeback import start_writeback

FILES = 4
FILE_BYTES = 1 << 26  # a process writes a file for each so many bytes, and at most `FILES`
BUFFER_BYTES = 1 << 20  # gathers small tensors
BLOCK_BYTES = 1 << 23  # of large ones
WRITEBACK_BYTES = 1 << 25


class HashingWriter(FileSystemWriter):
    """torch's writer, with the size and SHA-256 of every file this process wrote in `facts()`; files are synchronised to disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, sync_files=True, overwrite=False)
        self._hashing = HashingFileSystem()
        self.fs = self._hashing

    def facts(self) -> FileFacts:
        """Size and SHA-256 of the files written by this process, by name."""
        return self._hashing.facts

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        """Write this process's part of the plan, its files at the same time. Raises OSError as files do."""
        names = (f"{plan.storage_data.prefix}{number}{TENSOR_SUFFIX}" for number in itertools.count())
        with plain_archives():
            writing = [
                self._begin_file(name, items, planner) for name, items in zip(names, spread(plan.items), strict=False)
            ]
            wait(writing)
        finished: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        finished.set_result([result for file in writing for result in file.result()])
        return finished

    def _begin_file(self, name: str, items: list[WriteItem], planner: SavePlanner) -> Future[list[WriteResult]]:
        context = contextvars.copy_context()  # torch keeps the option of `plain_archives` there
        return in_background(lambda: context.run(self.write_file, name, items, planner), name=f"writing {name}")

    def write_file(self, name: str, items: list[WriteItem], planner: SavePlanner) -> list[WriteResult]:
        """Write one file: an archive for each item, in order."""
        results = []
        with self._hashing.create_stream(Path(self.path) / name, "wb") as stream:
            for item in items:
                offset = stream.tell()
                torch.save(standing_alone(cast("Tensor", planner.resolve_data(item))), stream)
                length = stream.tell() - offset
                results.append(WriteResult(item.index, length, _StorageInfo(name, offset, length)))
        return results


class HashingFileSystem(FileSystem):
    """torch's file system with a hash of everything written."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: FileFacts = {}

    @contextlib.contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        """Open a file; its facts are known once the block has ended."""
        if mode != "wb":
            with super().create_stream(path, mode) as stream:
                yield stream
            return
        with HashedFile(path) as raw:
            try:
                with io.BufferedWriter(raw, BUFFER_BYTES) as stream:
                    yield stream
                    stream.flush()
                    os.fsync(raw.fileno())  # torch synchronises before what it has written last has left the buffer
            except Exception:
                if raw.failure:  # torch reports a full disk as an archive of the wrong length
                    raise raw.failure from None
                raise
            self.facts[Path(path).name] = {"size": raw.bytes_written, "sha256": raw.sha256.hexdigest()}

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Rename a file, and its facts with it."""
        super().rename(path, new_path)
        self.facts[Path(new_path).name] = self.facts.pop(Path(path).name)


class HashedFile(io.FileIO):
    """A file, new and written from beginning to end, that knows the SHA-256 of what was written, and why it could not be."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, "wb")
        self.sha256 = hashlib.sha256()
        self.bytes_written = 0
        self.failure: OSError | None = None
        self._sent = 0  # bytes that the disk was asked to take

    def write(self, data: Any) -> int:
        """Write and hash in blocks. Raises OSError as files do."""
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < view.nbytes:
                written = super().write(view[done : done + BLOCK_BYTES])
                self.sha256.update(view[done : done + written])
                done += written
                self._advance(written)
        except OSError as error:
            self.failure = self.failure or error
            raise
        return done

    def _advance(self, written: int) -> None:
        self.bytes_written += written
        waiting = self.bytes_written - self._sent
        if waiting >= WRITEBACK_BYTES:
            start_writeback(self.fileno(), self._sent, waiting)
            self._sent = self.bytes_written


def spread(items: list[WriteItem]) -> list[list[WriteItem]]:
    """The items of each file, about equally many bytes, in the order in which they were given."""
    sizes = dict(enumerate(map(item_bytes, items)))
    files = min(FILES, len(items), 1 + sum(sizes.values()) // FILE_BYTES)
    return [[items[number] for number in numbers] for numbers in balanced(sizes, files)]


def standing_alone(tensor: Tensor) -> Tensor:
    """The tensor, contiguous on the CPU, as all there is in its memory: torch would save the whole memory behind a view.

    Copied only if it is strided or on another device.
    """
    values = tensor.detach().cpu().contiguous()
    if values.untyped_storage().nbytes() == values.nbytes:
        return values
    flat = values.as_strided((values.numel(),), (1,))  # view() would keep a stride that one element may have
    return torch.frombuffer(flat.view(torch.uint8).numpy(), dtype=values.dtype).view(values.shape)


@contextlib.contextmanager
def plain_archives() -> Iterator[None]:
    """Without the archives' own CRC32: the manifest's SHA-256 covers them, and it halves the time of writing."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)


def item_bytes(item: WriteItem) -> int:
    """Bytes of the values that an item stands for."""
    assert item.tensor_data is not None
    return math.prod(item.tensor_data.chunk.sizes) * item.tensor_data.properties.dtype.itemsize
