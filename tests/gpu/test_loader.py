"""Batches reach the GPU through pinned memory, and are whole there however late the copy runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from megatron.data.batch import Batch
from megatron.data.loaders import StepLoader
from megatron.data.samplers import BatchPlan
from tests.gpu.compare import CPU, never_waiting

pytestmark = pytest.mark.gpu

LENGTH, STEPS, VOCAB = 512, 24, 50_000
PLAN = BatchPlan.constant(8, accumulation=2)
GPU_DELAY_CYCLES = 20_000_000
"""About 10 ms: longer than the next batches take to be read and pinned."""


class RandomText:
    """Sample i is drawn from a generator seeded by i."""

    def __len__(self) -> int:
        return PLAN.schedule.samples_before(STEPS)

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        return np.random.default_rng(i).integers(VOCAB, size=LENGTH + 1)

    def source_of(self, i: int) -> str:
        return f"sample {i}"


def batches(device: torch.device, num_workers: int) -> Iterator[Sequence[Batch] | None]:
    return iter(StepLoader(RandomText(), PLAN, vocab_size=VOCAB, device=device, steps=STEPS, num_workers=num_workers))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_batch_is_whole_although_the_gpu_is_busy_when_it_is_sent(num_workers: int, device: torch.device) -> None:
    received = []
    for step in batches(device, num_workers):
        assert step is not None
        received.append(step)
        if device.type == "cuda":
            torch.cuda._sleep(GPU_DELAY_CYCLES)  # the next copies wait in the queue behind it
    assert len(received) == STEPS
    for found, expected in zip(received, batches(CPU, 0), strict=True):
        assert expected is not None
        for ours, theirs in zip(found, expected, strict=True):
            assert all(value.device == device for value in vars(ours).values())
            assert all(torch.equal(value.cpu(), getattr(theirs, name)) for name, value in vars(ours).items())


def test_sending_a_batch_does_not_wait_for_the_gpu(device: torch.device) -> None:
    source = batches(device, 2)
    next(source)
    with never_waiting(device):
        assert next(source) is not None
