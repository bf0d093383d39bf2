"""How many characters the predicted tokens of an evaluation stand for: what perplexity per character is divided by (`char_level_ppl`).

A token alone need not be text, so the labels that count are read in runs, behind the token before each run. An end of document is
something to predict as a character is, and counts as one in every tokenizer. A character that a run cuts apart counts where it begins.

Shapes: `b` micro-batch, `s` sequence length, `c` context ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from megatron.data.batch import Batch
from megatron.mpu.collectives import all_gather, all_reduce_sum
from megatron.mpu.groups import ProcessGroups
from megatron.tokenizer.base import Tokenizer

NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""What tokenizers show for bytes that are no whole character."""


class CharacterCount:
    """Counts the characters of the batches that pass by on this rank, and then of all ranks.

    Each sequence is counted by one rank: the first pipeline stage, tensor rank and context rank that reads it.
    """

    def __init__(self, tokenizer: Tokenizer, groups: ProcessGroups) -> None:
        self._tokenizer = tokenizer
        self._groups = groups
        self._reads = groups.pipe.rank == 0 and groups.tensor.rank == 0
        self._characters = 0

    def follow(self, batches: Iterator[Sequence[Batch] | None]) -> Iterator[Sequence[Batch] | None]:
        """The same batches, counted on the way (collective over the context ranks)."""
        for micro_batches in batches:
            if micro_batches is not None and self._reads:
                self._characters += sum(map(self._of_batch, micro_batches))
            yield micro_batches

    def total(self) -> int:
        """The characters that all ranks have counted (collective over the world)."""
        return int(all_reduce_sum(self._characters, self._groups.world))

    def _of_batch(self, batch: Batch) -> int:
        context = self._groups.context
        # [3, b, s / c] -> [3, b, s]
        parts = torch.stack([batch.tokens, batch.labels, batch.loss_mask.ne(0).to(batch.labels.dtype)])
        whole = all_gather(parts, context, dim=2)
        if context.rank:
            return 0
        rows = zip(*whole.tolist(), strict=True)
        return sum(characters(self._tokenizer, tokens, labels, counts) for tokens, labels, counts in rows)


def characters(tokenizer: Tokenizer, tokens: Sequence[int], labels: Sequence[int], counts: Sequence[int]) -> int:
    """How many characters the labels of one sequence stand for that count; `tokens[i]` is the one before `labels[i]`."""
    total, before = 0, 0
    for kind, group in groupby(zip(labels, counts, strict=True), key=lambda pair: _kind(tokenizer, *pair)):
        run = [label for label, _ in group]
        if kind == "end":
            total += len(run)
        elif kind == "text":
            total += _length(tokenizer, tokens[before], run)
        before += len(run)
    return total


def _kind(tokenizer: Tokenizer, label: int, counts: int) -> str:
    if not counts:
        return "masked"
    return "end" if label == tokenizer.eod else "text"


def _length(tokenizer: Tokenizer, before: int, run: Sequence[int]) -> int:
    """The characters that the tokens of `run` begin behind the token `before`."""
    is_start = before == tokenizer.eod
    text = tokenizer.detokenize(run) if is_start else tokenizer.continuation([before], run)
    if not is_start and tokenizer.detokenize([before]).endswith(NO_CHARACTER):
        text = text.lstrip(NO_CHARACTER)  # the rest of a character that `before` is a part of
    whole = text.rstrip(NO_CHARACTER)
    return len(whole) + (whole != text)  # what is begun is one character, however many bytes there are of it
