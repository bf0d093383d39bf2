"""Arrays computed once and kept as `.npy` files beside the data, memory-mapped by every process that needs them.

The caller's file names hold a hash of what the arrays are computed from, so a file that exists is right. Files are written whole or not
at all, so no reader sees half of one; of the processes that want the same arrays one builds them and the others wait (build_lock.py).
Where the data's directory is read-only, the user's cache directory is used; where that fails too, the arrays stay in memory.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from megatron.atomic import atomic_file
from megatron.data.maps.build_lock import build_lock
from megatron.log import get_logger

ABANDONED_AFTER = 86400.0  # seconds in which a living writer is sure to have written something

log = get_logger(__name__)


@dataclass(frozen=True)
class ArrayPieces:
    """An array that is computed piece by piece along its first dimension while it is written; it may be larger than the memory.

    `pieces` is called once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: Callable[[], Iterator[NDArray[Any]]]

    def join(self) -> NDArray[Any]:
        """The array as a whole, in memory."""
        whole = np.empty(self.shape, self.dtype)
        filled = 0
        for piece in self.pieces():
            whole[filled : filled + len(piece)] = piece
            filled += len(piece)
        assert filled == len(whole), f"{filled} rows of {len(whole)}"
        return whole


Arrays = Mapping[str, NDArray[Any] | ArrayPieces]


@dataclass(frozen=True)
class StoredArrays:
    """Named arrays. When they lie in files, pickling (for loader workers) stores the paths alone."""

    arrays: Mapping[str, NDArray[Any]]
    files: Mapping[str, Path] | None = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __reduce__(self) -> tuple[Callable[..., StoredArrays], tuple[Any, ...]]:
        return (StoredArrays, (self.arrays,)) if self.files is None else (open_arrays, (self.files,))


def load_or_build(names: Mapping[str, str], build: Callable[[], Arrays], *, beside: Path) -> StoredArrays:
    """The arrays stored as `{name}.npy` beside the file `beside` or in the user's cache; built and stored if they are not there.

    names: array -> file name without `.npy`; `build` returns an array for each, whole or in pieces. Pieces are computed in this order.
    """
    directories = [beside.parent, user_cache_directory()]
    for directory in directories:
        if found := _open_if_there(_files(directory, names)):
            return found
    for directory in directories:
        with contextlib.suppress(OSError):  # read-only or full: the next directory
            return _build_in(directory, names, build)
    log.warning(
        "neither %s nor %s can be written: %s stays in memory, in every process",
        *directories,
        next(iter(names.values())),
    )
    built = build()
    return StoredArrays({name: _whole(built[name]) for name in names})


def content_key(*inputs: object) -> str:
    """A hash, for file names, of everything that arrays are computed from; equal inputs must have equal representations."""
    return hashlib.blake2b(repr(inputs).encode(), digest_size=8).hexdigest()


def open_arrays(files: Mapping[str, Path]) -> StoredArrays:
    """Memory-map stored arrays. Raises OSError when a file is missing, ValueError when one is damaged."""
    # Plain arrays over the map: np.memmap makes every small slice slower.
    arrays = {name: np.asarray(np.load(path, mmap_mode="r")) for name, path in files.items()}
    return StoredArrays(arrays, dict(files))


def user_cache_directory() -> Path:
    """Where caches go when they cannot lie beside the data: `$XDG_CACHE_HOME` (default `~/.cache`)`/deepy-neox`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deepy-neox"


def _open_if_there(files: Mapping[str, Path]) -> StoredArrays | None:
    try:
        return open_arrays(files)
    except (OSError, ValueError):  # absent, or damaged by whatever copied the directory
        return None


def _build_in(directory: Path, names: Mapping[str, str], build: Callable[[], Arrays]) -> StoredArrays:
    """Build and store the arrays, unless another process has done so by now. Raises OSError where they cannot be written."""
    files = _files(directory, names)
    first = next(iter(files.values()))
    with build_lock(first.with_suffix(".lock")):
        if found := _open_if_there(files):
            return found
        _store(build(), files)
    return open_arrays(files)


def _files(directory: Path, names: Mapping[str, str]) -> dict[str, Path]:
    return {array: directory / f"{file_name}.npy" for array, file_name in names.items()}


def _store(arrays: Arrays, files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        _remove_abandoned(path)
        with atomic_file(path) as file:
            _write(arrays[name], file)


def _write(array: NDArray[Any] | ArrayPieces, file: BinaryIO) -> None:
    if not isinstance(array, ArrayPieces):
        np.save(file, array)
        return
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    rows = 0
    for piece in array.pieces():
        file.write(np.ascontiguousarray(piece, dtype=array.dtype).data)
        rows += len(piece)
    assert rows == array.shape[0], f"{rows} rows of {array.shape[0]}"


def _whole(array: NDArray[Any] | ArrayPieces) -> NDArray[Any]:
    return array.join() if isinstance(array, ArrayPieces) else array


def _remove_abandoned(path: Path) -> None:
    """Remove what writers of `path` that were killed have left behind."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if partial.stat().st_mtime < time.time() - ABANDONED_AFTER:
                partial.unlink()
