"""The loss that is computed with its projection, by kernels on the GPU, against fp64 on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from megatron.fused_kernels.dispatch import choose
from megatron.mpu.groups import SINGLE
from megatron.mpu.linear_cross_entropy import linear_cross_entropy
from megatron.mpu.linear_cross_entropy_rows import RowKernels
from tests.gpu.compare import distance

pytestmark = pytest.mark.gpu

LENGTH, BATCH, HIDDEN, VOCABULARY, PADDED = 512, 4, 128, 50_257, 50_304


@pytest.mark.parametrize("fuses", [False, True], ids=["plain torch", "kernels"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
def test_loss_and_gradients_are_those_of_fp64(
    dtype: torch.dtype, tolerance: float, fuses: bool, device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(LENGTH, BATCH, HIDDEN, generator=generator).to(dtype)
    weight = torch.randn(PADDED, HIDDEN, generator=generator).mul_(0.1).to(dtype)
    labels = torch.randint(VOCABULARY, (LENGTH, BATCH), generator=generator)
    labels[:3] = -100
    mask = torch.rand(LENGTH, BATCH, generator=generator)

    exact = [each.double().requires_grad_() for each in (hidden, weight)]
    logits = functional.linear(*exact)[..., :VOCABULARY]
    losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    expected = (losses * mask.flatten()).sum()
    (expected / mask.sum()).backward()

    names = ("softmax_statistics", "softmax_gradient_")
    kernels = RowKernels(*(choose(name, wanted=True, device=device) for name in names)) if fuses else None
    own = [each.to(device).requires_grad_() for each in (hidden, weight)]
    found = linear_cross_entropy(
        *own, None, labels.to(device), mask.to(device), SINGLE, vocab_size=VOCABULARY, kernels=kernels
    )
    (found / mask.sum().to(device)).backward()
    assert abs(found.item() / expected.item() - 1) < tolerance / 10
    for mine, theirs in zip(own, exact, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert distance(mine.grad, theirs.grad) < tolerance
