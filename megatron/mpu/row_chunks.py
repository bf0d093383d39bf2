"""How the rows of a projection are cut into chunks, and these into blocks, by the loss that is computed with it: arithmetic alone."""

from __future__ import annotations

CHUNK_BYTES = 128 << 20
"""Bytes of a chunk of logits. Each chunk adds to all of the matrix's gradient: few large ones are fastest."""
LEAST_ROWS = 256
"""Rows of a chunk, however wide: with fewer the products themselves get slower."""
NARROW_SUMS = 3
"""So many chunks are summed in half precision: as many roundings as those of each product and of their fp32 sum have together."""
BLOCK_BYTES = {"cpu": 4 << 20}
"""Bytes of a block, as wide as losses are computed: what the caches of a CPU hold."""
OTHER_BLOCK_BYTES = 256 << 20
"""On other devices: enough to keep them busy."""


def chunk_rows(rows: int, *, row_bytes: int) -> int:
    """Rows of a chunk, at least 1: as few chunks as the limits allow, of about one size."""
    count = max(-(-rows // max(CHUNK_BYTES // row_bytes, LEAST_ROWS)), 1)
    return max(-(-rows // count), 1)


def block_rows(rows: int, *, row_bytes: int, device: str) -> int:
    """Rows of a block of a chunk of `rows`, at least 1. row_bytes: of a row of the block; device: a torch device's type."""
    return max(min(BLOCK_BYTES.get(device, OTHER_BLOCK_BYTES) // max(row_bytes, 1), rows), 1)


def is_narrow(chunks: int) -> bool:
    """Whether the matrix's gradient is summed over so many chunks in its own precision, not in fp32."""
    return chunks <= NARROW_SUMS
