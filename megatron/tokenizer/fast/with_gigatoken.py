"""gigatoken as an engine: the fastest, for the patterns of GPT-2, Llama 3 and Qwen, which it does not read but has built in."""

from __future__ import annotations

import json
from typing import Any

import gigatoken
import numpy as np
from numpy.typing import NDArray

from megatron.tokenizer.fast.characters import UNICODE_17
from megatron.tokenizer.fast.encoder import Blueprint
from megatron.tokenizer.fast.file import BytePairs, write_bytes
from megatron.tokenizer.fast.merges import Unfit
from megatron.tokenizer.fast.patterns import GPT2, LLAMA3, QWEN2

PATTERNS = frozenset({GPT2, LLAMA3, QWEN2})
RENEWED_AFTER = 1 << 28  # characters: it remembers every piece that it has met, and memory would grow with the input


class GigatokenEngine:
    """Texts to ids.

    finds_added: whether texts may hold added tokens. It searches once for all of them, for the first and longest as `tokenizers` does.
    """

    name = "gigatoken"
    unknown = UNICODE_17

    def __init__(self, blueprint: Blueprint) -> None:
        self.finds_added = blueprint.added.together
        self._definition: bytes = blueprint.tables
        self._renew()

    @staticmethod
    def tables_of(pairs: BytePairs) -> bytes:
        """A tokenizer.json. Raises Unfit when the pattern is none of gigatoken's own."""
        if pairs.pattern not in PATTERNS:
            raise Unfit("gigatoken does not know its pattern")
        return _definition(pairs, added=pairs.added.ids if pairs.added.together else {})

    def encode(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text."""
        if self._left < 0:
            self._renew()
        self._left -= len(text)
        ids: NDArray[np.uint32] = self._engine.encode(text)
        return ids

    def _renew(self) -> None:
        self._engine = gigatoken.Tokenizer.from_json(self._definition).backend
        self._left = RENEWED_AFTER


def _definition(pairs: BytePairs, *, added: dict[str, int]) -> bytes:
    """A tokenizer.json of merges and added tokens alone: normalisation and templates are taken care of before and after."""
    split = {"type": "Split", "pattern": {"Regex": pairs.pattern}, "behavior": "Isolated", "invert": False}
    byte_level: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    cut = byte_level | {"use_regex": True}
    if pairs.pattern != GPT2:
        cut = {"type": "Sequence", "pretokenizers": [split, byte_level | {"use_regex": False}]}
    written = {token: write_bytes(token) for token in pairs.ids}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": bool(pairs.whole),
        "vocab": {written[token]: number for token, number in pairs.ids.items()},
        "merges": [(written[first], written[second]) for first, second in pairs.parts.values()],
    }
    file = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(text, number) for text, number in added.items()],
        "normalizer": None,
        "pre_tokenizer": cut,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    return json.dumps(file, ensure_ascii=False).encode("utf-8")


def _added_token(text: str, number: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": text, **flags}
