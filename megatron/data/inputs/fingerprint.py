"""How an input file is known to be the one it was: size, time of change, and a digest of both its ends."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from megatron.errors import DataError

END_BYTES = 1 << 14


@dataclass(frozen=True)
class InputFile:
    """A file as it is now. Comparing two tells whether it has changed, without reading it."""

    path: str
    size: int
    changed_ns: int
    digest: str


def fingerprint(path: Path) -> InputFile:
    """The fingerprint of a file. Raises DataError when it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            digest = hashlib.blake2b(file.read(END_BYTES), digest_size=8)
            file.seek(max(0, status.st_size - END_BYTES))
            digest.update(file.read(END_BYTES))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    return InputFile(str(path), status.st_size, status.st_mtime_ns, digest.hexdigest())


def differences(before: Iterable[InputFile], now: Iterable[InputFile]) -> list[str]:
    """What has changed between two lists of inputs, a phrase each; empty when nothing has."""
    old, new = list(before), list(now)
    if old == new:
        return []
    old_by_path, new_by_path = {file.path: file for file in old}, {file.path: file for file in new}
    phrases = [f"{path} is no longer an input" for path in old_by_path if path not in new_by_path]
    phrases += [f"{path} is a new input" for path in new_by_path if path not in old_by_path]
    phrases += [
        _difference(old_by_path[path], file)
        for path, file in new_by_path.items()
        if path in old_by_path and old_by_path[path] != file
    ]
    return phrases or ["the inputs come in another order"]


def _difference(before: InputFile, now: InputFile) -> str:
    if before.size != now.size:
        return f"{now.path} had {before.size:,} bytes and has {now.size:,}"
    return f"{now.path} was written to"
