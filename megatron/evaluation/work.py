"""The ranks of a run as those who evaluate a model: what rank 0 wants scored or completed is shared out among the copies of the model.

Where copies hold their weights in common (ZeRO 3) they cannot run apart, and each of them does everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, TypeVar

import torch

from megatron.evaluation.orders import Crew
from megatron.generation.complete import CompletionSettings, complete_tokens
from megatron.generation.decode import Decoder
from megatron.generation.scoring import Score, Scored, score
from megatron.mpu.groups import ProcessGroups
from megatron.tokenizer.base import Tokenizer

T = TypeVar("T")
Progress = Callable[[int], object]
"""Told how many requests have been done since it was told last."""

BATCHES_IN_ORDER = 16
"""Batches that each copy gets at once: enough to keep the stages of a pipeline busy, few enough to show progress."""


@dataclass(frozen=True)
class Wanted:
    """A prompt to complete, and how."""

    prompt: tuple[int, ...]
    settings: CompletionSettings


@dataclass(frozen=True)
class _Batch:
    """Prompts that are completed together; first_sample: the number of the first one, on which its random numbers depend."""

    prompts: tuple[tuple[int, ...], ...]
    settings: CompletionSettings
    first_sample: int


@dataclass(frozen=True)
class _Shares:
    """What each copy of the model is to do: score requests, or complete batches."""

    to_score: tuple[tuple[Scored, ...], ...] = ()
    to_complete: tuple[tuple[_Batch, ...], ...] = ()


class Workers:
    """`score` and `generate` are for rank 0, inside `run`.

    vocab_size: rows of the model's vocabulary without padding; batch_size: rows that a copy of the model runs at once; shares_requests:
    whether the copies may run apart.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        groups: ProcessGroups,
        *,
        vocab_size: int,
        batch_size: int,
        shares_requests: bool = True,
    ) -> None:
        self.batch_size = batch_size
        self._decoder, self._tokenizer, self._vocab_size = decoder, tokenizer, vocab_size
        # The copy that this rank belongs to, and how many there are. Of its ranks the first one speaks.
        self._copy, self._copies = (groups.replicas.rank, groups.replicas.size) if shares_requests else (0, 1)
        self._speaks = groups.model.rank == 0
        self._crew = Crew(groups.world, self._do_share)

    def run(self, work: Callable[[], T]) -> T | None:
        """What `work` returns on rank 0, where alone it runs while the others do what it asks for; None on those (collective).

        Raises as `Crew.run` does.
        """
        return self._crew.run(work)

    def score(self, requests: Sequence[Scored], progress: Progress = lambda done: None) -> list[Score]:
        """The scores of the requests, in their order."""
        read = [request.read for request in requests]
        longest_first = sorted(range(len(requests)), key=lambda number: _longest_first(read[number]))
        # Requests that read the same tokens go to the same copy, which then reads them once.
        together = [list(same) for _, same in groupby(longest_first, key=lambda number: read[number])]
        scores: dict[int, Score] = {}
        for part in _cut(together, BATCHES_IN_ORDER * self.batch_size * self._copies):
            shares = [list(chain.from_iterable(share)) for share in self._dealt(part)]
            order = _Shares(to_score=tuple(tuple(requests[number] for number in share) for share in shares))
            for share, found in zip(shares, self._give(order), strict=True):
                scores.update(zip(share, found, strict=True))
            progress(sum(map(len, shares)))
        return [scores[number] for number in range(len(requests))]

    def generate(self, wanted: Sequence[Wanted], progress: Progress = lambda done: None) -> list[list[int]]:
        """The tokens that follow each prompt, with those that ended it (an end of document, a stop string), in the order of the prompts.

        Raises NeoXError for a prompt without tokens, or without room for one more.
        """
        completed: dict[int, list[int]] = {}
        for part in _cut(list(self._batches(wanted)), self._copies):
            shares = list(self._dealt(part))
            order = _Shares(to_complete=tuple(tuple(batch for _, batch in share) for share in shares))
            for share, found in zip(shares, self._give(order), strict=True):
                completed.update(zip(chain.from_iterable(numbers for numbers, _ in share), found, strict=True))
            progress(sum(len(numbers) for numbers, _ in part))
        return [completed[number] for number in range(len(wanted))]

    def _batches(self, wanted: Sequence[Wanted]) -> Iterator[tuple[Sequence[int], _Batch]]:
        """Batches of prompts that are completed alike, the longest first, each with the numbers of its prompts."""
        for settings in dict.fromkeys(each.settings for each in wanted):
            alike = [number for number, each in enumerate(wanted) if each.settings == settings]
            alike.sort(key=lambda number: _longest_first(wanted[number].prompt))
            for place, numbers in enumerate(_cut(alike, self.batch_size)):
                prompts = tuple(wanted[number].prompt for number in numbers)
                yield numbers, _Batch(prompts, settings, first_sample=place * self.batch_size)

    def _dealt(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """What each copy gets of `items`: dealt out one by one, so that all get as much, and of the same length."""
        return (items[copy :: self._copies] for copy in range(self._copies))

    def _give(self, order: _Shares) -> list[list[Any]]:
        """What each copy finds."""
        found = dict(told for told in self._crew.give(order) if told is not None)
        return [found[copy] for copy in range(self._copies)]

    def _do_share(self, order: _Shares) -> tuple[int, list[Any]] | None:
        """This rank's part of an order: its copy's number and what that found, from one rank of a copy."""
        try:
            found = self._found(order)
        except (
            torch.OutOfMemoryError
        ) as error:  # no error of ours, as a rank that is short of memory may be the only one
            complaint = str(error).partition(". GPU")[0]
            raise MemoryError(
                f"the device ran out of memory while eval_tasks ran; make eval_batch_size ({self.batch_size}) smaller: {complaint}"
            ) from error
        return (self._copy, found) if self._speaks else None

    def _found(self, order: _Shares) -> list[Any]:
        if order.to_score:
            share = order.to_score[self._copy]
            return score(self._decoder.model, share, vocab_size=self._vocab_size, batch_size=self.batch_size)
        return [tokens for batch in order.to_complete[self._copy] for tokens in self._completed(batch)]

    def _completed(self, batch: _Batch) -> Iterator[list[int]]:
        completions = complete_tokens(
            self._decoder, self._tokenizer, batch.prompts, batch.settings, first_sample=batch.first_sample
        )
        return (completion.tokens + completion.ending for completion in completions)


def _longest_first(tokens: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return -len(tokens), tokens


def _cut(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))
