"""File operations that survive a crash: what is reported as written is on the disk, and names change in one step."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
from pathlib import Path
from typing import Any

from megatron.atomic import sync_directory

HASH_BLOCK_BYTES = 1 << 24

FileFacts = dict[str, dict[str, Any]]
"""`{"size": bytes, "sha256": hexadecimal}` by the file's path inside the checkpoint."""

TEMPORARY_PREFIX = ".tmp-"


def temporary_path(directory: Path, name: str) -> Path:
    """A new name in `directory` for something that is to become, or was, `name`; it says which process made it."""
    return directory / f"{TEMPORARY_PREFIX}{name}@{host_name()}@{os.getpid()}@{secrets.token_hex(4)}"


def host_name() -> str:
    """This host's name, made of characters that are safe in file names."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())


def make_directories(directory: Path) -> None:
    """Make a directory, and those above it that are missing; their names survive a power failure."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Create the file and synchronise it to disk. Its name survives a power failure after `sync_directory` of its parent."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, content: bytes) -> None:
    """Give `path` new content in one step: readers see the old or the new one, never a mixture."""
    temporary = temporary_path(path.parent, path.name)
    try:
        write_durably(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def rename_durably(source: Path, target: Path) -> None:
    """Rename a directory whose new name is free, and synchronise the parent."""
    os.rename(source, target)
    sync_directory(target.parent)


def remove_tree(directory: Path) -> None:
    """Delete a directory and all in it; what cannot be deleted stays, without an error."""
    shutil.rmtree(directory, ignore_errors=True)


def to_json(value: Any) -> bytes:
    """Readable JSON; floats keep every bit."""
    return (json.dumps(value, indent=1) + "\n").encode()


def sha256_of(content: bytes) -> str:
    """The hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
