"""A GPU makes the bits that a CPU makes, so that a run drops the same on either, and without waiting for anything."""

from __future__ import annotations

import pytest
import torch

from megatron.mpu.dropping import drop
from megatron.mpu.random_bits import dropped, mixed, numbered_words, position_words, sample_keys
from tests.gpu.compare import never_waiting

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")


def test_words_are_those_of_the_cpu(device: torch.device) -> None:
    keys = sample_keys(range(8), seed=1, step=2)
    on_gpu, on_cpu = (position_words(keys.to(place), 5, 1000) for place in (device, CPU))
    assert torch.equal(on_gpu.cpu(), on_cpu)
    assert torch.equal(mixed(on_gpu).cpu(), mixed(on_cpu))


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.9])
def test_masks_are_those_of_the_cpu(probability: float, device: torch.device) -> None:
    masks = [dropped(numbered_words(3, 2000, x), numbered_words(0, 1000, x), probability) for x in (device, CPU)]
    assert torch.equal(masks[0].cpu(), masks[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_values_and_gradients_are_dropped_as_on_the_cpu(dtype: torch.dtype, device: torch.device) -> None:
    results = []
    for place in (device, CPU):
        values = torch.linspace(-1, 1, 512 * 64).view(512, 64).to(place, dtype).requires_grad_()
        rows = numbered_words(0, 512, place)
        with never_waiting(device):
            result = drop(values, rows, 0.1)
            result.sum().backward()
        assert values.grad is not None
        results.append((result.detach().cpu(), values.grad.cpu()))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
        assert torch.equal(found == 0, expected == 0)
