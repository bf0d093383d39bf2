"""Which documents the samples of a step come from, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from megatron.data.gpt_dataset import SampleDataset
from megatron.data.samplers import BatchPlan, samples_of_step

MOST_NAMED = 12
"""Documents that a message names of each dataset."""

DocumentsOf = Callable[[int, int], str]
"""(step, micro-batch), both counted from 0 -> the documents in it on this data-parallel rank."""


def documents_of(dataset: SampleDataset, plan: BatchPlan) -> DocumentsOf:
    """The documents that the training batches of a rank are made of."""

    def describe(step: int, micro_batch: int) -> str:
        return describe_samples(dataset, samples_of_step(step, plan)[micro_batch])

    return describe


def describe_samples(dataset: SampleDataset, samples: Iterable[int]) -> str:
    """`data/text_document: documents 3, 17; data/code_document: document 5`; numbers count from 0 in the file."""
    numbers: dict[str, dict[int, None]] = {}
    for sample in samples:
        for piece in dataset.pieces_of(sample % len(dataset)):
            numbers.setdefault(str(piece.prefix), {})[piece.document] = None
    return "; ".join(f"{prefix}: {_listed(list(documents))}" for prefix, documents in numbers.items())


def _listed(documents: list[int]) -> str:
    named = ", ".join(map(str, documents[:MOST_NAMED]))
    more = f" and {len(documents) - MOST_NAMED} more" if len(documents) > MOST_NAMED else ""
    return f"document{'s' if len(documents) > 1 else ''} {named}{more}"
