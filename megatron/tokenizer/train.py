r"""Train a byte-level BPE tokenizer for prose and code, offline.

Merges never cross the pieces that `PIECES` cuts a text into, so the pattern decides what a token can be:

    [^\r\n\p{L}\p{N}]?\p{L}+      a word with the one character before it: " return", "_name", ".append", "(self"
    \p{N}                         one digit: numbers are spelled, never guessed from rare multi-digit tokens
     ?[^\s\p{L}\p{N}]+            punctuation with the space before it: " ==", "):", " '''"
    \s*[\r\n]+[ \t]*              line ends with the whole indentation of the next line: "\n        " can be one token
    \s+(?!\S)|\s+                 other white space; a run leaves its last space to the word after it

A line of code therefore begins with one token that holds its depth, and a word has the same token at every depth. Nothing is
normalised and all 256 bytes are in the vocabulary, so any text comes back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from megatron.errors import DataError
from megatron.tokenizer.hf import HFTokenizer

PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+[ \t]*|\s+(?!\S)|\s+"
SPECIAL_TOKENS = ("<|endoftext|>", "<|padding|>")
BYTES = 256
LONGEST_TOKEN = 32  # bytes; rulers such as "# ------" would fill the vocabulary with longer and longer ones


def train_bpe(texts: Iterable[str], *, vocab_size: int, special_tokens: Sequence[str] = SPECIAL_TOKENS) -> HFTokenizer:
    """A tokenizer of at most `vocab_size` entries: the special tokens (ids 0, 1, ...), the 256 bytes, then merges by frequency.

    The result depends on the texts alone, not on their order or on the number of threads. A small corpus may give fewer entries.
    Raises DataError when `vocab_size` has no room for the bytes, or when there is no text.
    """
    smallest = BYTES + len(special_tokens)
    if vocab_size < smallest:
        raise DataError(f"a vocabulary of {vocab_size} is too small: the {smallest} bytes and special tokens must fit.")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(tokenizers.Regex(PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=LONGEST_TOKEN,
        show_progress=False,
    )
    counted = _Counted(texts)
    tokenizer.train_from_iterator(counted, trainer=trainer)
    if counted.characters == 0:
        raise DataError("there is no text to train a tokenizer on: the input has no documents, or only empty ones.")
    return HFTokenizer(tokenizer.to_str(pretty=True), origin="trained here")


class _Counted:
    """Passes texts on and counts their characters."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self.characters = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        text = next(self._texts)
        self.characters += len(text)
        return text
