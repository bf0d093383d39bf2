"""The layout of a `.idx` file, which says where each sequence of a `.bin` file of tokens begins and how long it is.

Little endian: magic `MMIDIDX\\0\\0` (9 bytes), version u64 = 1, dtype code u8, number of sequences u64 (S), number of document
boundaries u64 (D), then `sizes` i32[S] in tokens, `pointers` i64[S] in bytes into the `.bin`, `boundaries` i64[D]: document d is
made of the sequences boundaries[d] .. boundaries[d + 1] - 1. The same files are read by GPT-NeoX and Megatron-LM.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from megatron.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
OLD_MAGIC = b"TNTIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
PROBES = 64
PROBE_BYTES = 4096

# Megatron-LM numbers the two float types the other way round: `dtype_of` lets the size of the .bin decide.
DTYPES: dict[int, np.dtype[Any]] = {
    code: np.dtype(name).newbyteorder("<")
    for code, name in enumerate(("u1", "i1", "i2", "i4", "i8", "f4", "f8", "u2"), start=1)
}
SWAPPED_FLOATS = {6: DTYPES[7], 7: DTYPES[6]}


@dataclass(frozen=True)
class IndexFile:
    """What a `.idx` file says. The arrays are read-only views of the memory-mapped file."""

    dtype_code: int
    sizes: NDArray[np.int32]  # [S] tokens
    pointers: NDArray[np.int64]  # [S] bytes
    boundaries: NDArray[np.int64]  # [D] sequence numbers, first 0, last S

    def dtype_of(self, bin_bytes: int) -> np.dtype[Any]:
        """The token dtype, given the size of the `.bin` file (which settles what a float code means)."""
        dtype = DTYPES[self.dtype_code]
        swapped = SWAPPED_FLOATS.get(self.dtype_code)
        if swapped is not None and self.bin_bytes(swapped) == bin_bytes != self.bin_bytes(dtype):
            return swapped
        return dtype

    def bin_bytes(self, dtype: np.dtype[Any]) -> int:
        """How large the `.bin` file must be: the end of the last sequence."""
        return int(self.pointers[-1]) + int(self.sizes[-1]) * dtype.itemsize if len(self.sizes) else 0


def write_index(
    file: BinaryIO, *, dtype: np.dtype[Any], sizes: NDArray[np.int32], boundaries: NDArray[np.int64]
) -> None:
    """Write the index of sequences of `sizes` tokens that lie back to back in the `.bin`."""
    sizes = np.asarray(sizes, dtype="<i4")
    file.write(HEADER.pack(MAGIC, VERSION, code_of(dtype), len(sizes), len(boundaries)))
    file.write(sizes.tobytes())
    file.write(_starts(sizes, dtype.itemsize).tobytes())
    file.write(np.asarray(boundaries, dtype="<i8").tobytes())


def read_index(path: Path) -> IndexFile:
    """Map an index file and check that it is one. Raises DataError for anything malformed."""
    length = path.stat().st_size
    if length < len(OLD_MAGIC):
        raise DataError(f"{path} is not an index file: it has only {length} bytes. Tokenise the data again.")
    with open(path, "rb") as file:
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if buffer[: len(OLD_MAGIC)] == OLD_MAGIC:
        raise DataError(
            f'{path} is in the old "cached"/"lazy" format (TNTIDX), which is not supported: '
            "tokenise the data again with tools/datasets/preprocess_data.py, which writes the mmap format."
        )
    if buffer[: len(MAGIC)] != MAGIC or length < HEADER.size:
        raise DataError(f"{path} is not an index file: it does not begin with the header of the mmap format.")
    _, version, code, sequences, documents = HEADER.unpack_from(buffer)
    _check_header(path, length, version=version, code=code, sequences=sequences, documents=documents)
    sizes_end = HEADER.size + 4 * sequences
    index = IndexFile(
        dtype_code=code,
        sizes=np.frombuffer(buffer, "<i4", sequences, HEADER.size),
        pointers=np.frombuffer(buffer, "<i8", sequences, sizes_end),
        boundaries=np.frombuffer(buffer, "<i8", documents, sizes_end + 8 * sequences),
    )
    if documents == 0 or index.boundaries[0] != 0 or index.boundaries[-1] != sequences:
        raise DataError(f"{path} is damaged: its documents do not span its {sequences} sequences. Tokenise again.")
    return index


def fingerprint(path: Path) -> str:
    """A short text that is another one when the file is: from its size, when it was changed, and what it holds in places.

    Of a small file that is all of it, of a large one PROBES blocks spread evenly from the header to the end: the time this takes does
    not depend on the size. Times count in whole seconds, which every file system keeps.
    """
    return _digest_of_probes(path, f"{int(path.stat().st_mtime)}")


def content_fingerprint(path: Path) -> str:
    """As `fingerprint`, without the time: a copy has the same one.

    In a large file a change of some bytes may fall between the blocks; what was tokenised or put together anew differs in all of them.
    """
    return _digest_of_probes(path, "content")


def _digest_of_probes(path: Path, salt: str) -> str:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.blake2b(f"{size} {salt}".encode(), digest_size=16)
        last = max(size - PROBE_BYTES, 0)
        blocks = min(PROBES, 1 + -(-last // PROBE_BYTES))
        for block in range(blocks):
            digest.update(os.pread(file.fileno(), PROBE_BYTES, last * block // max(blocks - 1, 1)))
    return digest.hexdigest()


def code_of(dtype: np.dtype[Any]) -> int:
    """The number a dtype has in the header. Raises DataError for a dtype the format does not have."""
    for code, known in DTYPES.items():
        if known == dtype.newbyteorder("<"):
            return code
    raise DataError(f"tokens cannot be stored as {dtype}: choose one of {', '.join(d.name for d in DTYPES.values())}.")


def _starts(sizes: NDArray[np.int32], itemsize: int) -> NDArray[np.int64]:
    starts = np.zeros(len(sizes), dtype="<i8")
    np.cumsum(sizes[:-1], dtype="<i8", out=starts[1:])
    starts *= itemsize
    return starts


def _check_header(path: Path, length: int, *, version: int, code: int, sequences: int, documents: int) -> None:
    if version != VERSION:
        raise DataError(f"{path} has version {version} of the index format; only version {VERSION} is known.")
    if code not in DTYPES:
        raise DataError(f"{path} has the unknown token type {code}; known are {min(DTYPES)} to {max(DTYPES)}.")
    expected = HEADER.size + 12 * sequences + 8 * documents
    if length != expected:
        raise DataError(
            f"{path} has {length} bytes, but its header ({sequences} sequences, {documents} document boundaries) "
            f"needs {expected}: the file is truncated or damaged. Copy it again, or tokenise the data again."
        )
