"""The usual way to tokenise a corpus, as the scripts of Megatron and GPT-NeoX do: the yardstick of tools/benchmark/tokenize.py.

The parent reads lines and hands them out, workers parse and tokenise one document each and send its ids back as a list, the parent
writes them.
"""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np

from megatron.data.indexed_dataset import IndexedDatasetWriter, token_dtype
from megatron.tokenizer.hf import HFTokenizer

CHUNK = 25  # lines handed out at once, as in those scripts

_tokenizer: HFTokenizer


def encode_with_pool(jsonl: Path, tokenizer_file: Path, prefix: Path, *, workers: int) -> None:
    """Write `prefix` + `.bin` and `.idx` from the key "text" of each line, every document ended."""
    dtype = token_dtype(HFTokenizer.from_file(tokenizer_file).vocab_size)
    pool = multiprocessing.get_context("fork").Pool(workers, initializer=_start, initargs=(tokenizer_file,))
    with open(jsonl, encoding="utf-8") as file, IndexedDatasetWriter(prefix, dtype=dtype) as writer, pool:
        for ids in pool.imap(_encode, file, CHUNK):
            writer.add_document(np.array(ids, dtype=dtype))


def _start(tokenizer_file: Path) -> None:
    global _tokenizer
    _tokenizer = HFTokenizer.from_file(tokenizer_file)


def _encode(line: str) -> list[int]:
    return [*_tokenizer.tokenize(json.loads(line)["text"]), _tokenizer.eod]
