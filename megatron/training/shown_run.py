"""The samples of a run for looking at: what its configuration makes of its data, without training anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from megatron.data.batch import document_rules
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.show import View, view_of_sample
from megatron.errors import DataError
from megatron.initialize import World
from megatron.mpu.groups import single_process_groups
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.base import Tokenizer
from megatron.training.batches import BatchFactory, resolve_epochs
from megatron.training.state import TrainState


@dataclass(frozen=True)
class ShownRun:
    """A run's datasets by name ("train", "validation", "test", ...) and its tokenizer."""

    args: NeoXArgs
    tokenizer: Tokenizer
    datasets: Mapping[str, SampleDataset | None]

    def views(self, part: str, numbers: Sequence[int]) -> Iterator[View]:
        """Samples of a part by their numbers: step k of training takes one batch of them after the other.

        Raises DataError where there is no such part or sample.
        """
        dataset = self.datasets.get(part)
        if dataset is None:
            there = [name for name, each in self.datasets.items() if each is not None]
            raise DataError(f'the run reads no "{part}" samples: choose one of {", ".join(there)}.')
        rules = document_rules(self.args, eod_token=self.tokenizer.eod)
        for number in numbers:
            if number >= len(dataset):
                raise DataError(
                    f"there is no {part} sample {number}: there are {len(dataset)} of them, counted from 0."
                )
            yield view_of_sample(
                dataset[number], dataset.pieces_of(number), title=f"{part} sample {number}", rules=rules
            )


def open_run(args: NeoXArgs, tokenizer: Tokenizer) -> ShownRun:
    """The datasets of the configured run, built or found in their caches as when it starts."""
    args = resolve_epochs(args)
    world = World(single_process_groups(), torch.device("cpu"))
    built = BatchFactory(args, world, tokenizer, TrainState(), reads_data=True).build_datasets()
    return ShownRun(args, tokenizer, {"train": built.train, **built.valid, "test": built.test})
