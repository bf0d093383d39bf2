"""What is known of a file on its way or arrived: the note `NAME.download.json` beside it, so that another call can go on.

NAME.partial         what has arrived; becomes NAME by a rename when it is whole and verified
NAME.download.json   where it comes from, which version of it, its size, and when it is whole its SHA-256
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2

from megatron.atomic import atomic_file

BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """A file to be had: the name it gets here, where it is (mirrors after the first), and what is published of it."""

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Record:
    """One version of a file. `version` is the same for equal bytes, `validator` is what If-Range takes; None where not told.

    sha256: of the whole file here; None until it is whole.
    """

    url: str
    version: str | None
    validator: str | None
    size: int | None
    sha256: str | None = None

    def continues(self, other: Record) -> bool:
        """Whether the bytes of `other` can follow those of this version."""
        if self.version is None or self.version != other.version:
            return False
        return self.size in (None, other.size) and (self.version.startswith("sha256:") or self.url == other.url)


def record_of(response: httpx2.Response, file: RemoteFile, url: str, *, size: int | None) -> Record:
    """The version a response is of.

    The Hugging Face hub publishes the SHA-256 of large files as the X-Linked-Etag of its redirect to the store.
    """
    headers = response.headers
    linked = published_sha256(response)
    tag, modified = headers.get("ETag"), headers.get("Last-Modified")
    sha256 = file.sha256 or linked
    version: str | None
    if sha256:
        version = f"sha256:{sha256}"
    elif tag:
        version = f"etag:{tag.removeprefix('W/')}"
    else:
        version = f"modified:{modified}" if modified else None
    strong = tag if tag and not tag.startswith("W/") else None
    return Record(url, version, strong or (None if tag else modified), size)


def published_sha256(response: httpx2.Response) -> str | None:
    """The digest the hub gives with its redirect, if it does."""
    for step in (*response.history, response):
        digest = step.headers.get("X-Linked-Etag", "").strip('"')
        if _SHA256.fullmatch(digest):
            return digest
    return None


def read_record(path: Path) -> Record | None:
    """The record of the file called `path`; None when there is none that can be read."""
    try:
        return Record(**json.loads(record_path(path).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Write the record, whole or not at all."""
    with atomic_file(record_path(path)) as file:
        file.write(json.dumps(asdict(record), indent=2).encode("utf-8"))


def record_path(path: Path) -> Path:
    """Where the record of `path` is."""
    return path.with_name(f"{path.name}.download.json")


def partial_path(path: Path) -> Path:
    """Where what has arrived of `path` is."""
    return path.with_name(f"{path.name}.partial")


def digest_of(path: Path) -> hashlib._Hash:
    """The SHA-256 of a file's bytes, to be gone on with; of nothing when there is no file."""
    digest = hashlib.sha256()
    if path.exists():
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest


def arrived(path: Path) -> int:
    """Bytes of `path` that are here already, whole or in part."""
    for place in (path, partial_path(path)):
        if place.exists():
            return place.stat().st_size
    return 0
