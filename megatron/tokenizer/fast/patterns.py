"""The patterns that cut a text into pieces, whose matches are known to be the same in other engines.

They are built from classes of characters, counts and one look ahead, and engines that go through the alternatives in order can only
differ in which characters a class holds. That was compared for every character there is, and is in the tests.
"""

from __future__ import annotations

from megatron.tokenizer.train import PIECES

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

KNOWN = frozenset({GPT2, LLAMA3, QWEN2, PIECES})
