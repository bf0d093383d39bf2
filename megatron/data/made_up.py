"""Generated text for trying a configuration where its data is not: documents of words in characters, with labels beside them.

The same on every machine and at every time: it follows from the number of the dataset alone.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from megatron.data.derived.labels import LABEL_DTYPE, labels_of
from megatron.data.indexed_dataset import IndexedDatasetWriter, token_dtype
from megatron.tokenizer.char_level import CharLevelTokenizer

DOCUMENTS = 300
WORDS = ("import", "def", "return", "class", "self", "lambda", "yield", "pass")
LONGEST = 40
"""Words of a document."""


def make_up_dataset(directory: Path, number: int) -> tuple[Path, Path]:
    """Write a dataset for the tokenizer CharLevelTokenizer and its labels; their prefixes. The first half of a document carries no loss."""
    tokenizer = CharLevelTokenizer()
    choose = random.Random(number)
    text, labels = directory / f"text{number}", directory / f"labels{number}"
    with (
        IndexedDatasetWriter(text, dtype=token_dtype(tokenizer.vocab_size)) as texts,
        IndexedDatasetWriter(labels, dtype=LABEL_DTYPE) as targets,
    ):
        for _ in range(DOCUMENTS):
            words = " ".join(choose.choices(WORDS, k=choose.randint(1, LONGEST)))
            tokens = np.array([*tokenizer.tokenize(words), tokenizer.eod])
            texts.add_document(tokens)
            targets.add_document(labels_of(tokens, np.arange(len(tokens)) >= len(tokens) // 2))
    return text, labels
