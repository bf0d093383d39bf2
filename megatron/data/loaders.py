"""From a dataset to the micro-batches of each step, on the device, read ahead by worker processes.

Of the ranks that need a batch only the first of each tensor-parallel group reads it; the others receive it. What step k contains
follows from k alone (samplers.py), so a run resumes by giving `start_step`, and nothing else has to be saved.

Shapes: `b` micro-batch, `s` sequence length, `g` micro-batches in a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from megatron.data.batch import Batch, DocumentRules, build_batch
from megatron.data.cut_sequence import cut_sequence
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.sample_checks import check_samples
from megatron.data.samplers import BatchPlan, samples_of_step
from megatron.data.worker_signals import keep_child_handler, obey_owner_only
from megatron.errors import DataError
from megatron.mpu.broadcast import broadcast_tensors
from megatron.mpu.groups import SINGLE, Group
from megatron.mpu.random_bits import sample_keys
from megatron.neox_arguments.sequence_schedule import SequenceSchedule


class StepLoader:
    """Iterating gives, for steps `start_step`, `start_step + 1`, ..., the list of this rank's micro-batches (or None, see below).

    Every `iter` starts over at `start_step`, so an evaluation loader yields the same batches each time; only the newest iterator
    may be used. All ranks of a tensor-parallel group must iterate together.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        plan: BatchPlan,
        *,
        vocab_size: int,
        device: torch.device | str = "cpu",
        start_step: int = 0,
        steps: int | None = None,
        wrap: bool = False,
        rules: DocumentRules | None = None,
        lengths: SequenceSchedule | None = None,
        num_workers: int = 0,
        tensor_group: Group = SINGLE,
        context_group: Group = SINGLE,
        reads_data: bool = True,
        dropout_seed: int | None = None,
    ) -> None:
        """
        vocab_size: token ids must be below it. steps: how many steps to yield, as many as the dataset has when None.
        wrap: begin again at sample 0 after the last one, instead of raising DataError. rules: what the end of a document changes,
        None = nothing. lengths: how many tokens of its samples a step takes, None = all. num_workers: processes that read ahead; 0 reads in this process.
        context_group: ranks that share the sequences: each reads the same samples, and keeps its part of them (`cut_sequence`).
        reads_data: whether this rank's pipeline stage needs batches; otherwise None is yielded for every step, without any reading.
        dropout_seed: what keys of dropout follow from, besides steps and samples; None: the model has no dropout, and batches no keys.
        """
        self.plan = plan
        self._dataset = dataset
        self._vocab_size = vocab_size
        self._device = torch.device(device)
        self._rules = rules
        self._lengths = lengths
        self._tensor_group = tensor_group
        self._context_group = context_group
        self._reads_data = reads_data
        self._dropout_seed = dropout_seed
        self._steps = _StepRange(
            start_step, steps, available=None if wrap else plan.schedule.steps_within(len(dataset))
        )
        self._loader = self._build_loader(num_workers) if reads_data and tensor_group.rank == 0 else None

    def __iter__(self) -> Iterator[list[Batch] | None]:
        texts = self._read()
        for step in self._steps:
            text = next(texts)
            if text is not None:
                self._check(text, step)
                if self._lengths is not None:
                    text = text[..., : self._lengths.length_of(step) + 1].contiguous()
            yield self._batches(text, step) if self._reads_data else None
        if self._steps.fell_short:
            raise DataError(
                f"the dataset has {len(self._dataset)} samples, enough for {self._steps.available} steps, and the run asks for more: "
                "build it with more samples."
            )

    def _build_loader(self, num_workers: int) -> DataLoader[Any]:
        return DataLoader(
            self._dataset,  # type: ignore[arg-type]  # DataLoader needs only __len__ and __getitem__
            batch_sampler=_StepSamples(self._steps, self.plan, len(self._dataset)),  # type: ignore[arg-type]
            collate_fn=_stack,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=obey_owner_only,
            pin_memory=self._device.type == "cuda",
            # The default would draw a seed from the global generator, and so change the run.
            generator=torch.Generator(),
        )

    def _read(self) -> Iterator[Tensor | None]:
        """The text of each step, int64 [g * b, s + 1] (with label data [g * b, 2, s + 1]) on the CPU, on ranks that read; None on others."""
        if self._loader is None:
            yield from itertools.repeat(None)
            return
        with keep_child_handler():
            texts = iter(self._loader)
        while True:
            try:
                text = next(texts, None)
            except (RuntimeError, OSError, EOFError) as error:
                if not (self._loader.num_workers and _is_death_of_worker(error)):
                    raise
                raise DataError(
                    f"a process that reads data has died ({error}): the machine may be out of memory or of shared memory (/dev/shm). "
                    'Lower "num_workers", or set it to 0 to read in the training process.'
                ) from error
            if text is None:
                return
            yield text

    def _batches(self, text: Tensor | None, step: int) -> list[Batch]:
        """Give the text [g * b, s + 1], or [g * b, 2, s + 1], to the tensor-parallel group and cut it into micro-batches."""
        tensors = None if text is None else {"text": text}
        text = broadcast_tensors(tensors, self._tensor_group, self._device)["text"]
        batches = [build_batch(rows, self._rules) for rows in text.split(self.plan.micro_batch)]
        if self._dropout_seed is not None:
            keys = self._keys_of_dropout(self._dropout_seed, step)
            batches = [replace(batch, dropout_keys=own) for batch, own in zip(batches, keys, strict=True)]
        return [cut_sequence(batch, self._context_group) for batch in batches]

    def _keys_of_dropout(self, seed: int, step: int) -> Iterator[Tensor]:
        """Those of each micro-batch: on every rank from the numbers of its samples, so that none has to be sent."""
        for samples in samples_of_step(step, self.plan):
            yield sample_keys(samples, seed=seed, step=step).to(self._device)

    def _check(self, text: Tensor, step: int) -> None:
        """Raise DataError for samples of this step that cannot be trained on."""

        def sample_of(row: int) -> int:
            return list(itertools.chain.from_iterable(samples_of_step(step, self.plan)))[row] % len(self._dataset)

        check_samples(text, self._dataset, sample_of=sample_of, vocab_size=self._vocab_size)


@dataclass(frozen=True)
class _StepRange:
    """Steps `start`, `start + 1`, ...: `steps` of them (None = for ever), as far as the dataset's `available` ones reach."""

    start: int
    steps: int | None
    available: int | None

    def __iter__(self) -> Iterator[int]:
        ends = [end for end in (self._wanted_end, self.available) if end is not None]
        return iter(range(self.start, min(ends))) if ends else itertools.count(self.start)

    @property
    def fell_short(self) -> bool:
        """Whether the dataset ends before the steps that were asked for."""
        return self.available is not None and (self._wanted_end is None or self._wanted_end > self.available)

    @property
    def _wanted_end(self) -> int | None:
        return None if self.steps is None else self.start + self.steps


class _StepSamples:
    """The sample numbers of each step on this rank: what DataLoader calls a batch sampler, without an end it has to know."""

    def __init__(self, steps: Iterable[int], plan: BatchPlan, samples: int) -> None:
        self._steps = steps
        self._plan = plan
        self._samples = samples

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            yield [i % self._samples for micro in samples_of_step(step, self._plan) for i in micro]


def _is_death_of_worker(error: Exception) -> bool:
    """Tell a worker that died, found out by DataLoader or by a broken connection, from an error that a worker sent us."""
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    return not str(error).startswith("Caught ")


def _stack(samples: Sequence[NDArray[np.int64]]) -> Tensor:
    return torch.from_numpy(np.stack(samples))
