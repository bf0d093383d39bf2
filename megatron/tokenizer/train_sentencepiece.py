"""Train a SentencePiece model, offline: `unigram` (pieces kept by likelihood) or `bpe` (pairs merged by frequency, as Llama's).

Nothing is normalised, runs of spaces can be pieces, and what has no piece is spelled in bytes, line ends included: any text comes back
unchanged, except that U+2581, which the library writes for a space, becomes one.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece

from megatron.errors import DataError
from megatron.tokenizer.sentencepiece import SPMTokenizer
from megatron.tokenizer.train import BYTES, SPECIAL_TOKENS

MODEL_TYPES = ("unigram", "bpe")
UNKNOWN = 1  # the piece every model has, though the bytes leave it nothing to do
LONGEST_LINE = 4096  # characters; the trainer leaves out what is longer than its limit in bytes, of which a character has at most 4


def train_sentencepiece(
    texts: Iterable[str],
    *,
    vocab_size: int,
    model_type: str = "unigram",
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
) -> SPMTokenizer:
    """A model of at most `vocab_size` pieces: the unknown piece, the special tokens (ids 1, 2, ...), the 256 bytes, then learned ones.

    model_type: one of MODEL_TYPES. The result depends on the texts alone. Raises DataError when `vocab_size` has no room for the bytes
    and the characters of the texts, when it is more than the texts can fill, or when there is no text.
    """
    smallest = UNKNOWN + len(special_tokens) + BYTES
    if vocab_size <= smallest:
        raise DataError(
            f"a vocabulary of {vocab_size} is too small: {smallest} special tokens and bytes must fit, and more."
        )
    lines = _lines(texts)
    first = next(lines, None)
    if first is None:
        raise DataError("there is no text to train a tokenizer on: the input has no documents, or only empty ones.")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_chain(first, lines),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            control_symbols=list(special_tokens),
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            max_sentence_length=4 * LONGEST_LINE,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2]  # without the place in the library's source
        raise DataError(f"sentencepiece cannot train a vocabulary of {vocab_size} on this text: {reason}") from None
    return SPMTokenizer(model.getvalue(), origin="trained here")


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.split("\n"):
            yield from (line[begin : begin + LONGEST_LINE] for begin in range(0, len(line), LONGEST_LINE))


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
