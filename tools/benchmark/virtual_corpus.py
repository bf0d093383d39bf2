"""A tokenised dataset of any size that takes little room on disk: only the sizes of its documents are real.

Of the index file the places of the documents, and all of the tokens, are holes, which file systems store nowhere; reading them gives
zeros. That is enough for whatever is computed from sizes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megatron.data.index_file import HEADER, MAGIC, VERSION, code_of
from megatron.data.indexed_dataset import bin_path, idx_path

PIECE = 1 << 22
TOKEN = np.dtype("<u2")


def write_virtual_corpus(prefix: Path, *, documents: int, mean_tokens: int) -> int:
    """Write `documents` documents of 1 to 2 * mean_tokens - 1 tokens at `prefix`; how many tokens that is."""
    random = np.random.default_rng(0)
    tokens, last_size = 0, 0
    with open(idx_path(prefix), "wb") as file:
        file.write(HEADER.pack(MAGIC, VERSION, code_of(TOKEN), documents, documents + 1))
        for begin in range(0, documents, PIECE):
            sizes = random.integers(1, 2 * mean_tokens, size=min(PIECE, documents - begin), dtype=np.int32)
            file.write(sizes.data)
            tokens += int(sizes.sum(dtype=np.int64))
            last_size = int(sizes[-1])
        pointers = HEADER.size + 4 * documents
        boundaries = pointers + 8 * documents
        file.seek(boundaries - 8)
        file.write(np.int64((tokens - last_size) * TOKEN.itemsize).tobytes())
        file.seek(boundaries + 8 * documents)
        file.write(np.int64(documents).tobytes())
    with open(bin_path(prefix), "wb") as file:
        file.truncate(tokens * TOKEN.itemsize)
    return tokens
