"""Files that are here already: which are whole, what is known of them, and whether they are still as they came."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megatron.data.corpora.download.record import (
    Record,
    RemoteFile,
    digest_of,
    partial_path,
    read_record,
    record_path,
    write_record,
)
from megatron.errors import DataError


def whole_files(files: Sequence[RemoteFile], directory: Path) -> list[Record] | None:
    """The records of all files, or None when one is not here."""
    if not all(is_whole(file, directory) for file in files):
        return None
    return [record for file in files if (record := read_record(directory / file.name)) is not None]


def is_whole(file: RemoteFile, directory: Path) -> bool:
    """Whether the file is here, of the size noted when it arrived. One put here by hand is noted as it is, if it is as published."""
    path = directory / file.name
    if not path.is_file():
        return False
    size = path.stat().st_size
    record = read_record(path)
    if record is None:
        digest = digest_of(path).hexdigest()
        if digest != (file.sha256 or digest):
            return False
        record = Record(file.urls[0], f"sha256:{digest}", None, size, digest)
        write_record(path, record)
    return record.sha256 is not None and record.size == size and record.sha256 == (file.sha256 or record.sha256)


def verify(files: Sequence[RemoteFile], directory: Path) -> None:
    """Read all files and compare them with their records. Raises DataError for those that have changed on the disk."""
    changed = []
    for file in files:
        record = read_record(directory / file.name)
        if record is None or digest_of(directory / file.name).hexdigest() != record.sha256:
            changed.append(str(directory / file.name))
    if changed:
        raise DataError(
            f"{', '.join(changed)} has other bytes than those that were downloaded (its SHA-256 has changed): "
            "delete it, or use --force, and it is downloaded again."
        )


def forget(files: Sequence[RemoteFile], directory: Path) -> None:
    """Remove the files, whole or in part, and what is known of them."""
    for file in files:
        for path in (directory / file.name, partial_path(directory / file.name), record_path(directory / file.name)):
            path.unlink(missing_ok=True)
