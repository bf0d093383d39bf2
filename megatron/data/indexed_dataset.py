"""Tokenised text on disk: `PREFIX.bin` holds the tokens back to back, `PREFIX.idx` says where each sequence is (see index_file.py).

The tokens are memory-mapped: opening a dataset of any size is immediate, and reading a sequence touches only its own bytes.
"""

from __future__ import annotations

import contextlib
import difflib
import mmap
from array import array
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from megatron.atomic import atomic_file
from megatron.data.index_file import code_of, content_fingerprint, fingerprint, read_index, write_index
from megatron.errors import DataError

COPY_BYTES = 1 << 24


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The dtype tokens of a vocabulary are stored in: u16 below 65,500 entries, else i32."""
    return np.dtype("<u2") if vocab_size < 65500 else np.dtype("<i4")


def dataset_prefix(path: str | Path) -> Path:
    """The path both files begin with, given with or without `.bin` or `.idx`. Raises DataError for a path without a name."""
    path = Path(path)
    if not path.name:
        raise DataError(
            f'"{path}" does not name a dataset: give what its files begin with, such as data/mine_text_document.'
        )
    return path.with_suffix("") if path.suffix in (".bin", ".idx") else path


def bin_path(prefix: Path) -> Path:
    """The file of tokens."""
    return prefix.with_name(prefix.name + ".bin")


def idx_path(prefix: Path) -> Path:
    """The file that says where each sequence is."""
    return prefix.with_name(prefix.name + ".idx")


def origins_path(prefix: Path) -> Path:
    """The file that says where the documents came from (see origins.py); not every dataset has one."""
    return prefix.with_name(prefix.name + ".sources.json")


class IndexedDataset:
    """The sequences of a dataset, read-only; `dataset[i]` is a view of the tokens of sequence i, `len` counts sequences.

    A document is usually one sequence; `document_boundaries` tells where it is not. Pickling stores the path alone.
    Raises DataError when a file is missing, malformed, or does not fit the other.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = dataset_prefix(prefix)
        for path in (idx_path(self.prefix), bin_path(self.prefix)):
            if not path.is_file():
                raise DataError(_missing_sentence(self.prefix, path))
        self._index = read_index(idx_path(self.prefix))
        self._buffer = _map_file(bin_path(self.prefix))
        self.dtype = self._index.dtype_of(len(self._buffer))
        self._check_bin_size()

    @property
    def sizes(self) -> NDArray[np.int32]:
        """Tokens of each sequence, int32 [S]. Sums need `dtype=np.int64`."""
        return self._index.sizes

    @property
    def document_boundaries(self) -> NDArray[np.int64]:
        """int64 [documents + 1]: document d is made of the sequences boundaries[d] to boundaries[d + 1] - 1."""
        return self._index.boundaries

    @property
    def fingerprint(self) -> str:
        """A short text that is another one when the index file is; found without reading the file (see index_file.py)."""
        return fingerprint(idx_path(self.prefix))

    @cached_property
    def content(self) -> tuple[str, str]:
        """Short texts that are others when what the index file and the file of tokens hold is another; copies have the same."""
        return content_fingerprint(idx_path(self.prefix)), content_fingerprint(bin_path(self.prefix))

    def tokens_of(self, sequences: range) -> int:
        """Tokens in consecutive sequences, found without adding up: the format stores them back to back."""
        if not sequences:
            return 0
        pointers, last = self._index.pointers, sequences[-1]
        between = int(pointers[last]) - int(pointers[sequences.start])
        return between // self.dtype.itemsize + int(self._index.sizes[last])

    def __len__(self) -> int:
        return len(self._index.sizes)

    def __getitem__(self, i: int) -> NDArray[Any]:
        return self.get(i)

    def get(self, i: int, offset: int = 0, length: int | None = None) -> NDArray[Any]:
        """`length` tokens (default: all that are left) of sequence i from token `offset` on: a read-only view [length].

        Raises IndexError outside the dataset or the sequence.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"sequence {i} of a dataset of {len(self)}")
        size = int(self._index.sizes[i])
        length = size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > size:
            raise IndexError(f"tokens {offset} to {offset + length} of sequence {i}, which has {size}")
        start = int(self._index.pointers[i]) + offset * self.dtype.itemsize
        return np.frombuffer(self._buffer, self.dtype, length, start) if length else np.empty(0, self.dtype)

    def warm_up(self) -> None:
        """Read the whole `.bin` once, so that the operating system's cache holds as much of it as fits."""
        with open(bin_path(self.prefix), "rb", buffering=0) as file:
            while file.read(COPY_BYTES):
                pass

    def __reduce__(self) -> tuple[type[IndexedDataset], tuple[Path]]:
        return IndexedDataset, (self.prefix,)

    def _check_bin_size(self) -> None:
        expected = self._index.bin_bytes(self.dtype)
        if len(self._buffer) == expected:
            return
        reason = "it is truncated" if len(self._buffer) < expected else "the two files are not of the same dataset"
        raise DataError(
            f"{bin_path(self.prefix)} has {len(self._buffer)} bytes, but {idx_path(self.prefix).name} describes {expected}: "
            f"{reason}. Copy both files again, or tokenise the data again."
        )


def open_tokens(prefix: str | Path) -> IndexedDataset:
    """A dataset of tokens. Raises DataError when it holds numbers that are none, such as rewards."""
    dataset = IndexedDataset(prefix)
    if dataset.dtype.kind == "f":
        raise DataError(f"{dataset.prefix} holds {dataset.dtype.name} numbers, not tokens: name a dataset of text.")
    return dataset


class IndexedDatasetWriter:
    """Writes a dataset document by document, in a `with` block; tokens go straight to disk.

    The files appear under their names when the block ends without an error, the `.idx` last: whoever sees it sees a whole dataset.
    When the block raises, nothing is left behind and an older dataset of the same name is untouched.
    """

    def __init__(self, prefix: str | Path, *, dtype: DTypeLike) -> None:
        self.prefix = dataset_prefix(prefix)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        code_of(self.dtype)  # refuses a dtype the format does not have before any work is done
        self.tokens = 0
        self._sizes = array("i")
        self._boundaries = array("q", [0])
        self._files = contextlib.ExitStack()
        self._bin: BinaryIO | None = None
        self._idx: BinaryIO | None = None

    @property
    def documents(self) -> int:
        """How many documents have been added."""
        return len(self._boundaries) - 1

    def __enter__(self) -> IndexedDatasetWriter:
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        # Left in reverse order: the .bin gets its name first.
        self._idx = self._files.enter_context(atomic_file(idx_path(self.prefix)))
        self._bin = self._files.enter_context(atomic_file(bin_path(self.prefix)))
        return self

    def add_document(self, ids: Sequence[int] | ArrayLike) -> None:
        """Add one document of one sequence. An empty one is skipped: the format's readers expect tokens in every document.

        Raises DataError when an id does not fit the dtype.
        """
        tokens = self._as_tokens(ids)
        if len(tokens) == 0:
            return
        self._write(tokens.tobytes())
        self._sizes.append(len(tokens))
        self._boundaries.append(len(self._sizes))
        self.tokens += len(tokens)

    def add_dataset(self, dataset: IndexedDataset) -> None:
        """Add all sequences and documents of another dataset of the same dtype. Raises DataError when the dtypes differ."""
        if dataset.dtype != self.dtype:
            raise DataError(
                f"{dataset.prefix} holds {dataset.dtype.name} tokens and cannot be added to {self.dtype.name} ones: "
                "tokenise both with the same tokenizer."
            )
        with open(bin_path(dataset.prefix), "rb") as source:
            while chunk := source.read(COPY_BYTES):
                self._write(chunk)
        first = len(self._sizes)
        self._sizes.frombytes(dataset.sizes.tobytes())
        self._boundaries.frombytes((dataset.document_boundaries[1:] + first).tobytes())
        self.tokens += int(dataset.sizes.sum(dtype=np.int64))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._files.__exit__(kind, error, traceback)
            return
        assert self._idx is not None
        with self._files:
            write_index(
                self._idx,
                dtype=self.dtype,
                sizes=np.frombuffer(self._sizes, np.int32),
                boundaries=np.frombuffer(self._boundaries, np.int64),
            )
            # What an older dataset of this name has beside its .bin must never be seen beside the new one.
            idx_path(self.prefix).unlink(missing_ok=True)
            origins_path(self.prefix).unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        assert self._bin is not None, "IndexedDatasetWriter is used in a with block"
        self._bin.write(data)

    def _as_tokens(self, ids: Sequence[int] | ArrayLike) -> NDArray[Any]:
        values = np.asarray(ids)
        if self.dtype.kind in "iu" and values.size:
            allowed = np.iinfo(self.dtype)
            low, high = int(values.min()), int(values.max())
            if low < allowed.min or high > allowed.max:
                wrong = low if low < allowed.min else high
                raise DataError(
                    f"token id {wrong} does not fit {self.dtype.name} ({allowed.min} to {allowed.max}): "
                    "the tokenizer's vocabulary is larger than the dtype was chosen for."
                )
        return values.astype(self.dtype, copy=False).reshape(-1)


def _map_file(path: Path) -> mmap.mmap | bytes:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return b""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _missing_sentence(prefix: Path, path: Path) -> str:
    """Say that `path` does not exist and which datasets the directory does hold."""
    directory = prefix.parent
    if not directory.is_dir():
        return f"dataset {prefix} does not exist: there is no directory {directory}."
    names = sorted(found.stem for found in directory.glob("*.idx"))
    if prefix.name in names:
        return f"dataset {prefix} is incomplete: {path} is missing beside {idx_path(prefix).name}. Copy it again, or tokenise the data again."
    close = [name for name in names if name.startswith(prefix.name)] or difflib.get_close_matches(prefix.name, names, 3)
    if close:
        return f"dataset {prefix} does not exist (no {path.name}); did you mean {' or '.join(close[:3])}?"
    there = f"the datasets there are {', '.join(names[:10])}" if names else f"{directory} holds no dataset (*.idx)"
    return f"dataset {prefix} does not exist (no {path.name}): {there}."
