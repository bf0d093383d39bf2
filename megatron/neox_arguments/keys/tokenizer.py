"""Text to tokens: which tokenizer, its files, and the padding of the vocabulary."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from megatron.components import TOKENIZERS
from megatron.neox_arguments.keys.types import ComponentName, Group, Integer


class TokenizerArgs(Group):
    """The tokenizer and the vocabulary."""

    tokenizer_type: Annotated[str, ComponentName(TOKENIZERS)] = "GPT2BPETokenizer"
    """Kind of tokenizer. `GPT2BPETokenizer` reads a vocab.json and a merges.txt, `HFTokenizer` a tokenizer.json, `HFGPT2Tokenizer`
    either, or the hub's "gpt2"; `SPMTokenizer` a SentencePiece model, `TiktokenTokenizer` an encoding of tiktoken's;
    `CharLevelTokenizer` needs no file."""

    vocab_file: str | None = None
    """Vocabulary file according to tokenizer_type: a vocab.json; a tokenizer.json or the directory of a Hugging Face model; a
    SentencePiece model; a .tiktoken file or the name of an encoding, such as cl100k_base."""

    merge_file: str | None = None
    """Merges file (merges.txt) of a GPT-2 style tokenizer."""

    eod_token: str | None = None
    """The token that ends a document. Default: `<|endoftext|>` or `<|end_of_text|>`, else the end of sequence that the tokenizer's
    files name, else the one token that usually is it; where several might be, this key is needed."""

    vocab_size: Integer | None = Field(None, ge=1)
    """Rows of the vocabulary that the model has, where these are more than its tokenizer has tokens: Pythia has 50304 and 50277, Qwen2.5
    151936 and 151665. They are trained and saved as all others, and never generated. Default: the tokens of the tokenizer."""

    make_vocab_size_divisible_by: Integer = Field(128, ge=1)
    """The embedding gets rows up to the next multiple of this times model_parallel_size. Matrix units like multiples of 128; 1 adds
    none. The extra rows never influence the loss and are not saved."""

    padded_vocab_size: Integer | None = Field(None, ge=1)
    """Rows of the embedding with padding. In a config they are only a record: a run counts them itself. Default: vocab_size, else
    entries of the tokenizer, rounded up as make_vocab_size_divisible_by says."""

    tokenizer: Any = None
    """The tokenizer object. Set while running."""
