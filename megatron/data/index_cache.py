"""Arrays computed once and kept as `.npy` files beside the data, memory-mapped by every process that needs them.

The caller's file names hold a hash of what the arrays are computed from, so a file that exists is right. Files are written whole or not
at all: processes that build the same arrays at the same time only waste work. Where the data's directory is read-only, the user's
cache directory is used; where that fails too, the arrays stay in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.atomic import atomic_file


@dataclass(frozen=True)
class StoredArrays:
    """Named arrays. When they lie in files, pickling (for loader workers) stores the paths alone."""

    arrays: Mapping[str, NDArray[Any]]
    files: Mapping[str, Path] | None = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __reduce__(self) -> tuple[Callable[..., StoredArrays], tuple[Any, ...]]:
        return (StoredArrays, (self.arrays,)) if self.files is None else (open_arrays, (self.files,))


def load_or_build(
    names: Mapping[str, str], build: Callable[[], Mapping[str, NDArray[Any]]], *, beside: Path
) -> StoredArrays:
    """The arrays stored as `{name}.npy` beside the file `beside` or in the user's cache; built and stored if they are not there.

    names: array -> file name without `.npy`; `build` returns an array for each.
    """
    directories = [beside.parent, user_cache_directory()]
    for directory in directories:
        try:
            return open_arrays(_files(directory, names))
        except (OSError, ValueError):  # absent, or damaged by whatever copied the directory: build it again
            continue
    arrays = build()
    for directory in directories:
        files = _files(directory, names)
        try:
            _store(arrays, files)
        except OSError:  # read-only or full: the next directory
            continue
        return open_arrays(files)
    return StoredArrays(arrays)


def open_arrays(files: Mapping[str, Path]) -> StoredArrays:
    """Memory-map stored arrays. Raises OSError when a file is missing, ValueError when one is damaged."""
    # Plain arrays over the map: np.memmap makes every small slice slower.
    arrays = {name: np.asarray(np.load(path, mmap_mode="r")) for name, path in files.items()}
    return StoredArrays(arrays, dict(files))


def user_cache_directory() -> Path:
    """Where caches go when they cannot lie beside the data: `$XDG_CACHE_HOME` (default `~/.cache`)`/deepy-neox`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deepy-neox"


def _files(directory: Path, names: Mapping[str, str]) -> dict[str, Path]:
    return {array: directory / f"{file_name}.npy" for array, file_name in names.items()}


def _store(arrays: Mapping[str, NDArray[Any]], files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            np.save(file, arrays[name])
