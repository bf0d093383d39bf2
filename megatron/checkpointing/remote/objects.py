"""What pathlib has no words for: files in a store, written, uploaded in parts, fetched in part, and deleted."""

from __future__ import annotations

import contextlib
import inspect
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

_FLAT = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "memory"))
"""Stores without directories; in any other one, a file's directory is made before the file. S3 would make a bucket instead."""

PARTS_AT_ONCE = 2
MOST_PARTS = 10_000  # of an object in S3


@dataclass(frozen=True)
class StoredObject:
    """A name in a store, of a file or a whole directory. store: the fsspec file system; key: the name in it.

    Errors are those of the store's library: OSError, or its own.
    """

    store: Any
    key: str

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, by one request."""
        content: bytes = self.store.cat_file(self.key, start=start, end=end)
        return content

    def write(self, content: bytes) -> None:
        """Make this the file's content, in one step where the store can do so."""
        self._make_directory()
        self.store.pipe_file(self.key, content)

    def upload(self, source: Path, *, chunk_bytes: int) -> None:
        """Copy a local file here, a few parts of `chunk_bytes` in memory at a time."""
        self._make_directory()
        chunk_bytes = max(chunk_bytes, math.ceil(source.stat().st_size / MOST_PARTS))
        options = {"chunksize": chunk_bytes, "max_concurrency": PARTS_AT_ONCE}
        known = inspect.signature(self.store.put_file).parameters
        self.store.put_file(str(source), self.key, **{name: options[name] for name in options if name in known})

    def age_seconds(self) -> float:
        """The time since the file was written; 0 where the store does not tell."""
        try:
            modified: datetime = self.store.modified(self.key)
        except NotImplementedError:
            return 0.0
        return (datetime.now(UTC) - modified.astimezone(UTC)).total_seconds()

    def remove(self) -> None:
        """Delete the file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.store.rm_file(self.key)

    def remove_tree(self) -> None:
        """Delete everything below this name, and uploads that were begun there and never ended."""
        self._abort_uploads()
        with contextlib.suppress(FileNotFoundError):
            self.store.rm(self.key, recursive=True)

    def _abort_uploads(self) -> None:
        """S3 keeps, and bills, the parts of an upload whose process was killed; other stores forget them by themselves."""
        if not hasattr(self.store, "list_multipart_uploads"):
            return
        bucket, _, prefix = self.key.partition("/")
        begun = self.store.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
        for upload in begun.get("Uploads", []):
            self.store.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _make_directory(self) -> None:
        protocols = self.store.protocol
        if _FLAT.isdisjoint((protocols,) if isinstance(protocols, str) else protocols):
            self.store.makedirs(self.key.rpartition("/")[0], exist_ok=True)


def object_of(path: Path) -> StoredObject:
    """What a path that is not local stands for."""
    remote = cast("Any", path)
    return StoredObject(remote.fs, remote.path)
