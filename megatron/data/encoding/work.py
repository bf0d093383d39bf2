"""The directory an encoding works in, beside its output: `OUTPUT_PREFIX.partial`, which goes when the output is whole.

    manifest.json              what the work was started with; without it the rest means nothing
    1f0c9a2b/00000012.*        finished shards, see shard.py
    1f0c9a2b/0.bin, 0.idx      the output of the first key, see assembly.py
    1f0c9a2b/0.sources.json    where its documents came from, see origins.py
    1f0c9a2b/engine.partial    what workers build the engine from, while they work, see worker.py
    1f0c9a2b/complete.json     the summary, written when all outputs are whole and only wait to be moved into place

Each start has an inner directory of a name of its own: workers that outlive a killed run for a moment do not write into the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron.atomic import atomic_file, sync_directory
from megatron.data.encoding.manifest import Manifest, read_manifest, write_manifest
from megatron.data.encoding.shard import ShardNote, note_of, read_note
from megatron.data.indexed_dataset import bin_path, idx_path, origins_path
from megatron.errors import DataError

COMPLETE = "complete.json"


def work_directory_of(output_prefix: Path) -> Path:
    """Where the work for an output is done."""
    return output_prefix.with_name(f"{output_prefix.name}.partial")


def is_unfinished(output_prefix: Path) -> bool:
    """Whether there is work that --resume would continue."""
    return (work_directory_of(output_prefix) / "manifest.json").exists()


class WorkDirectory:
    """The directory, held by this process alone while `opened`."""

    def __init__(self, output_prefix: Path) -> None:
        self.path = work_directory_of(output_prefix)
        self._manifest = self.path / "manifest.json"
        self._inner: Path | None = None

    @property
    def directory(self) -> Path:
        """Where shards and outputs are, once the work has been started or continued."""
        assert self._inner is not None, "start or go_on comes first"
        return self._inner

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Make the directory and keep others out of it. Raises DataError when another process is at work in it, and for what the disk
        refuses in the block.

        When the block raises, what --resume could use is kept, and the directory goes when there is nothing of the kind.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._locked():
                yield
        except OSError as error:
            raise DataError(f"{error.filename or self.path} cannot be written: {error.strerror or error}.") from None

    def manifest(self) -> Manifest | None:
        """What the work that is there was started with."""
        return read_manifest(self._manifest)

    def start(self, manifest: Manifest) -> None:
        """Begin with an empty directory."""
        self._manifest.unlink(missing_ok=True)
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        self._inner = self.path / manifest.directory
        self._inner.mkdir()
        write_manifest(self._manifest, manifest)

    def go_on(self, manifest: Manifest) -> None:
        """Continue the work that is there, without what killed processes had not finished."""
        self._inner = self.path / manifest.directory
        for path in self._inner.glob("*.partial"):
            path.unlink(missing_ok=True)

    def note(self, number: int) -> ShardNote | None:
        """The note of a shard; None when it is not finished."""
        return read_note(note_of(self.directory, number))

    def write_summary(self, summary: bytes) -> None:
        """All outputs are whole; from here on only `publish` is left to do."""
        with atomic_file(self.directory / COMPLETE) as file:
            file.write(summary)

    def summary(self) -> bytes | None:
        """What `write_summary` wrote; None when the outputs are not whole yet."""
        path = self.directory / COMPLETE
        return path.read_bytes() if path.exists() else None

    def publish(self, prefixes: Sequence[Path]) -> None:
        """Move the outputs to their names, and remove the directory. May be repeated after a kill at any moment."""
        for output, prefix in enumerate(prefixes):
            made = self.directory / str(output)
            if bin_path(made).exists():
                # The .idx of an older dataset of this name must never be seen beside the new .bin.
                idx_path(prefix).unlink(missing_ok=True)
            for path_of in (bin_path, origins_path, idx_path):
                if path_of(made).exists():
                    os.replace(path_of(made), path_of(prefix))
        sync_directory(self.path.parent)
        self.remove()

    def remove(self) -> None:
        """Remove the directory, the manifest first: what is left by a kill in between is not taken for work to be continued."""
        self._manifest.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            self._lock(descriptor)
            try:
                yield
            finally:
                if not self._manifest.exists() or next(self.path.glob("*/[0-9]*.json"), None) is None:
                    self.remove()
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise DataError(
                    f"another process is writing this output (it holds {self.path}): wait for it, or choose another --output-prefix."
                ) from None
            # Some network file systems cannot lock a directory.
