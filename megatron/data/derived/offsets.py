"""Which characters of a text each of its tokens is of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.derived.turns import Spans
from megatron.errors import DataError
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.hf import HFTokenizer, read_engine


def touched(offsets: Sequence[tuple[int, int]], spans: Spans) -> NDArray[np.bool_]:
    """Which of the tokens at `offsets` [n], [begin, end) of characters, have a character in one of `spans`: bool [n].

    A token of no character, such as a word border that the tokenizer puts in, counts as being of the one that follows.
    """
    begins, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    ends = np.maximum(ends, begins + 1)
    result = np.zeros(len(offsets), bool)
    for begin, end in spans:
        result |= (begins < end) & (ends > begin)
    return result


def read_offset_engine(tokenizer: Tokenizer) -> Any:
    """The `tokenizers.Tokenizer` that gives the same ids, without special tokens around them, and all characters that they are of.

    A byte-level post-processor would leave spaces out of the offsets. Raises DataError for tokenizers of another kind.
    """
    if not isinstance(tokenizer, HFTokenizer):
        raise DataError(f"conversations need a tokenizer of the Hugging Face kind, not {tokenizer.name}.")
    definition = json.loads(tokenizer.definition()) | {"post_processor": None, "truncation": None, "padding": None}
    return read_engine(json.dumps(definition), origin="the tokenizer")
