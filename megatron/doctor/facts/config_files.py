"""The datasets that a config names: whether they are there and can be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.validation_sets import validation_sets

INDEX_MAGIC = b"MMIDIDX\x00\x00"
"""With which an `.idx` file begins (megatron/data/index_file.py, which needs numpy)."""

_LISTS = tuple(f"{part}{kind}_data_paths" for part in ("train", "valid", "test") for kind in ("", "_label"))


@dataclass(frozen=True)
class NamedFile:
    """A file that a key names. problem: why it cannot be used, empty when it can."""

    key: str
    path: str
    bytes: int = 0
    problem: str = ""


def look_at_files(args: NeoXArgs) -> list[NamedFile]:
    """The datasets: `.bin` and `.idx` of each."""
    return [
        look_at_file(key, f"{prefix}{end}", magic=INDEX_MAGIC if end == ".idx" else b"")
        for key, prefix in _prefixes(args)
        for end in (".bin", ".idx")
    ]


def look_at_file(key: str, path: str, *, magic: bytes = b"") -> NamedFile:
    """One file. magic: what it begins with."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(magic))
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return NamedFile(key, path, problem="does not exist")
    except OSError as error:
        return NamedFile(key, path, problem=f"cannot be read ({(error.strerror or str(error)).lower()})")
    if begin != magic:
        return NamedFile(key, path, size, "is no index of a dataset" if size else "is empty")
    return NamedFile(key, path, size)


def _prefixes(args: NeoXArgs) -> Iterator[tuple[str, str]]:
    if args.data_path:
        yield "data_path", args.data_path
    for key in _LISTS:
        for prefix in getattr(args, key) or ():
            yield key, prefix
    for name, wanted in validation_sets(args).items():
        for prefix in (*wanted.paths, *(wanted.label_paths or ())):
            yield f"validation_sets.{name}", prefix
