"""tiktoken as an engine: it cuts with the pattern of the file itself, which must be one whose matches are known to be the same."""

from __future__ import annotations

import numpy as np
import tiktoken
from numpy.typing import NDArray

from megatron.tokenizer.fast.encoder import Blueprint
from megatron.tokenizer.fast.file import BytePairs
from megatron.tokenizer.fast.merges import Unfit
from megatron.tokenizer.fast.patterns import KNOWN


class TiktokenEngine:
    """Texts, without added tokens, to ids."""

    name = "tiktoken"
    unknown: tuple[tuple[int, int], ...] = ()
    finds_added = False

    def __init__(self, blueprint: Blueprint) -> None:
        pattern, ids = blueprint.tables
        self._encoding = tiktoken.Encoding(
            name="tokenizer.json", pat_str=pattern, mergeable_ranks=ids, special_tokens={}
        )

    @staticmethod
    def tables_of(pairs: BytePairs) -> tuple[str, dict[bytes, int]]:
        """The pattern and the id of each token. Raises Unfit when the pattern is not a known one."""
        if pairs.pattern not in KNOWN:
            raise Unfit("its pattern is not one of those that are known to match alike in tiktoken")
        return pairs.pattern, pairs.ids

    def encode(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text."""
        ids: NDArray[np.uint32] = self._encoding.encode_to_numpy(text, disallowed_special=())
        return ids
