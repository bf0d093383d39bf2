"""What a run reads from a state on: its datasets, their batches, and the ledger that says so in checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.data.batch import Batch
from megatron.data.datasets import Datasets
from megatron.data.ledger.segments import Ledger
from megatron.initialize import World
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.base import Tokenizer
from megatron.training.batches import BatchFactory
from megatron.training.data_ledger import DataLedger, continue_ledger
from megatron.training.guards.documents import DocumentsOf, documents_of
from megatron.training.state import TrainState


@dataclass(frozen=True)
class RunData:
    """batches: of the steps that are left, as this rank's micro-batches; documents: what these are made of."""

    factory: BatchFactory
    datasets: Datasets
    batches: Iterator[Sequence[Batch] | None]
    documents: DocumentsOf
    ledger: DataLedger


def open_data(
    args: NeoXArgs, world: World, tokenizer: Tokenizer, state: TrainState, *, reads_data: bool, before: Ledger | None
) -> RunData:
    """The data of a run that goes on at `state` (collective). before: what its checkpoint says of the data, None at the beginning."""
    laid_out = 0 if before is None else before.segments[-1].num_samples
    factory = BatchFactory(args, world, tokenizer, state, reads_data, laid_out)
    datasets = factory.build_datasets()
    assert datasets.train is not None, "build_datasets refuses a run without training data"
    return RunData(
        factory=factory,
        datasets=datasets,
        batches=factory.train(datasets),
        documents=documents_of(datasets.train, factory.training_plan),
        ledger=continue_ledger(args, world, state, datasets, before=before, train_samples=factory.train_samples),
    )
