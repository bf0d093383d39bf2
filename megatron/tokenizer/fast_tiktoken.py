"""tiktoken as an engine: it cuts with the pattern of the file itself, which must be one whose matches are known to be the same."""

from __future__ import annotations

import numpy as np
import tiktoken
from numpy.typing import NDArray

from megatron.tokenizer.fast_file import BytePairs
from megatron.tokenizer.fast_merges import Unfit
from megatron.tokenizer.fast_patterns import KNOWN


class TiktokenEngine:
    """Texts, without added tokens, to ids. Raises Unfit when the pattern is not a known one."""

    name = "tiktoken"
    unknown: tuple[tuple[int, int], ...] = ()
    finds_added = False

    def __init__(self, pairs: BytePairs) -> None:
        if pairs.pattern not in KNOWN:
            raise Unfit("its pattern is not one of those that are known to match alike in tiktoken")
        self._encoding = tiktoken.Encoding(
            name="tokenizer.json", pat_str=pairs.pattern, mergeable_ranks=pairs.ids, special_tokens={}
        )

    def encode(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text."""
        ids: NDArray[np.uint32] = self._encoding.encode_to_numpy(text, disallowed_special=())
        return ids
