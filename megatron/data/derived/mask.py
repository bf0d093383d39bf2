"""Loss masks by delimiter: of each document only what follows a sequence of tokens, such as those of "Answer:", is trained on.

Everything up to and including the first occurrence of the sequence has no loss. A document without the sequence is trained on as a
whole, as in GPT-NeoX, and counted (`Counts.unmasked`); one that ends with it has nothing to train on (`Counts.untrained`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.derived.labels import check_distinct, label_output, labels_of
from megatron.data.encoding.worker import EncodedBatch, Encoder, EncodeRecipe
from megatron.errors import DataError


@dataclass(frozen=True, kw_only=True)
class MaskRecipe(EncodeRecipe):
    """Each key gives its tokens and their labels. mask_before: the token ids of the sequence."""

    mask_before: tuple[int, ...]

    def build_encoder(self) -> MaskEncoder:
        return MaskEncoder(self)


class MaskEncoder(Encoder):
    """Encodes texts as Encoder does, and adds the labels. Raises DataError for tokens that the vocabulary does not have."""

    def __init__(self, recipe: MaskRecipe) -> None:
        super().__init__(recipe)
        check_sequence(recipe.mask_before, vocab_size=self.tokenizer.vocab_size)
        self.outputs = tuple(both for text in self.outputs for both in (text, label_output(text.name)))
        check_distinct(self.outputs)
        self._mask_before = recipe.mask_before

    def options(self) -> dict[str, Any]:
        return {"--mask-before-token": list(self._mask_before)}

    def encode(self, documents: Sequence[tuple[Any, ...]]) -> EncodedBatch:
        """Tokenise documents of one text a key, into the tokens and the labels of each key."""
        batch = super().encode(documents)
        ids, sizes, counts = list[NDArray[Any]](), list[NDArray[np.int32]](), batch.counts
        for tokens, lengths in zip(batch.ids, batch.sizes, strict=True):
            ends = np.cumsum(lengths)
            trained, unmasked, untrained = np.ones(len(tokens), bool), 0, 0
            for begin, end in zip(ends - lengths, ends, strict=True):
                masked = length_through(tokens[begin:end], self._mask_before)
                trained[begin : begin + masked] = False
                unmasked += masked == 0
                untrained += masked == end - begin
            ids += (tokens, labels_of(tokens, trained))
            sizes += (lengths, lengths)
            counts = replace(counts, unmasked=counts.unmasked + unmasked, untrained=counts.untrained + int(untrained))
        return replace(batch, ids=tuple(ids), sizes=tuple(sizes), counts=counts)


def length_through(tokens: NDArray[Any], sequence: Sequence[int]) -> int:
    """How many of `tokens` [n] come before the end of the first occurrence of `sequence`; 0 when there is none."""
    places = np.flatnonzero(tokens[: max(len(tokens) - len(sequence) + 1, 0)] == sequence[0])
    for offset, token in enumerate(sequence):
        places = places[tokens[places + offset] == token]
    return int(places[0]) + len(sequence) if len(places) else 0


def parse_sequence(words: str) -> tuple[int, ...]:
    """Token ids from a comma list such as `0,1,1270`. Raises DataError."""
    parts = [part.strip() for part in words.strip("[] ").split(",")]
    if not all(part.isdecimal() for part in parts):
        raise DataError(
            f'--mask-before-token is "{words}": write token ids with commas between them, such as 0,1,1270; '
            "they are those that the tokenizer gives for the text to mask up to."
        )
    return tuple(map(int, parts))


def check_sequence(sequence: Sequence[int], *, vocab_size: int) -> None:
    """Raise DataError when the vocabulary does not have all tokens of the sequence."""
    for token in sequence:
        if token >= vocab_size:
            raise DataError(
                f"--mask-before-token has {token}, but the tokenizer's ids end at {vocab_size - 1}: "
                "give the ids that this tokenizer has for the text to mask up to."
            )
