"""Text to tokens: which tokenizer, its files, and the padding of the vocabulary."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from megatron.components import TOKENIZERS
from megatron.neox_arguments.planned import PLANNED
from megatron.neox_arguments.types import ComponentName, Group, Integer


class TokenizerArgs(Group):
    """The tokenizer and the vocabulary."""

    tokenizer_type: Annotated[str, ComponentName(TOKENIZERS, PLANNED["tokenizer_type"])] = "GPT2BPETokenizer"
    """Kind of tokenizer. `HFTokenizer` reads a `tokenizer.json`, `GPT2BPETokenizer` a vocab.json and a merges.txt,
    `CharLevelTokenizer` needs no file."""

    vocab_file: str | None = None
    """Vocabulary file: tokenizer.json, vocab.json or a SentencePiece model, according to tokenizer_type."""

    merge_file: str | None = None
    """Merges file (merges.txt) of a GPT-2 style tokenizer."""

    make_vocab_size_divisible_by: Integer = Field(128, ge=1)
    """The embedding gets rows up to the next multiple of this times model_parallel_size. Matrix units like multiples of 128; 1 keeps
    the tokenizer's size, as models converted from Hugging Face need. The extra rows never influence the loss."""

    padded_vocab_size: Integer | None = Field(None, ge=1)
    """Rows of the embedding. Derived from the tokenizer when the run starts; in a config it is only a record."""

    tokenizer: Any = None
    """The tokenizer object; a value of running programs only."""
