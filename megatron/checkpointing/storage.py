"""Reads and writes the files of torch.distributed.checkpoint: hashed while they are written, each saved chunk read once.

The format is torch's own (`*.distcp`: one file a rank, a `torch.save` archive a chunk; `.metadata`: what lies where).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.files import FileFacts
from megatron.checkpointing.planners import narrow

BLOCK_BYTES = 1 << 23


class HashingWriter(FileSystemWriter):
    """torch's writer, with the size and SHA-256 of every file this process wrote in `facts()`; files are synchronised to disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, sync_files=True, overwrite=False)
        self._hashing = HashingFileSystem()
        self.fs = self._hashing

    def facts(self) -> FileFacts:
        """Size and SHA-256 of the files written by this process, by name."""
        return self._hashing.facts


class HashingFileSystem(FileSystem):
    """torch's file system with a hash of everything written, computed by a second thread beside the writing."""

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
        with ThreadPoolExecutor(1) as thread, HashedFile(path, thread) as raw:
            try:
                with io.BufferedWriter(raw) as stream:
                    yield stream
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

    def __init__(self, path: str | os.PathLike[str], thread: ThreadPoolExecutor) -> None:
        super().__init__(path, "wb")
        self.sha256 = hashlib.sha256()
        self.bytes_written = 0
        self.failure: OSError | None = None
        self._thread = thread

    def write(self, data: Any) -> int:
        """Write in blocks; while one is written, the one before it is hashed. Raises OSError as files do."""
        view, done = memoryview(data).cast("B"), 0
        hashing: Future[None] | None = None
        try:
            while done < view.nbytes:
                written = super().write(view[done : done + BLOCK_BYTES])
                if hashing is not None:
                    hashing.result()
                hashing = self._hash(view[done : done + written])
                done += written
        except OSError as error:
            self.failure = self.failure or error
            raise
        finally:
            # The memory belongs to the caller and may be gone once this method has returned.
            if hashing is not None:
                hashing.result()
        self.bytes_written += done
        return done

    def _hash(self, block: memoryview) -> Future[None] | None:
        if len(block) == BLOCK_BYTES:
            return self._thread.submit(self.sha256.update, block)
        self.sha256.update(block)  # too little to be worth a thread
        return None


class ChunkReader(FileSystemReader):
    """torch's reader, but a saved chunk of which several parts are wanted is read once, in the order of the file.

    Holds one chunk at a time beside the destination.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What the checkpoint holds; raises DamagedCheckpoint when that cannot be read."""
        try:
            return super().read_metadata(*args, **kwargs)
        except Exception as error:  # unpickling garbage may raise anything
            raise DamagedCheckpoint(
                f"{Path(self.path) / '.metadata'} cannot be read ({type(error).__name__}: {error})"
            ) from error

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> torch.futures.Future[None]:
        """Fill what the plan asks for; raises DamagedCheckpoint naming a file that is missing or cannot be read."""
        for name, items in itertools.groupby(
            sorted(plan.items, key=self._place), key=lambda item: self._place(item)[0]
        ):
            path = Path(self.path) / name
            try:
                with open(path, "rb") as file:
                    self._read_file(file, items, planner)
            except OSError as error:
                raise DamagedCheckpoint(f"{path} cannot be read ({error.strerror})") from error
        finished: torch.futures.Future[None] = torch.futures.Future()
        finished.set_result(None)
        return finished

    def _read_file(self, file: io.BufferedReader, items: Iterator[ReadItem], planner: LoadPlanner) -> None:
        for _, wanted in itertools.groupby(items, key=self._place):
            chunk: Tensor | None = None
            for item in wanted:
                if chunk is None:
                    chunk = self._read_chunk(file, item)
                destination = planner.resolve_tensor(item)
                destination.copy_(narrow(chunk, item.storage_offsets, item.lengths))
                planner.commit_tensor(item, destination)

    def _read_chunk(self, file: io.BufferedReader, item: ReadItem) -> Tensor:
        archive = self._slice_file(file, self.storage_data[item.storage_index])
        try:
            chunk: Tensor = torch.load(archive, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # garbage may raise anything, with advice that does not fit
            name = item.storage_index.fqn
            raise DamagedCheckpoint(f"{file.name} cannot be read: what it holds of {name} is no tensor") from error
        return chunk

    def _place(self, item: ReadItem) -> tuple[str, int]:
        stored = self.storage_data[item.storage_index]
        return stored.relative_path, stored.offset
