"""Cross entropy of half-precision logits on the GPU, against fp64 on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from megatron.mpu.cross_entropy import vocab_parallel_cross_entropy
from megatron.mpu.groups import SINGLE

pytestmark = pytest.mark.gpu

ROWS, LENGTH, VOCAB, PADDED = 2, 32, 50_257, 50_304


def made_logits(dtype: torch.dtype, scale: float) -> torch.Tensor:
    """[b, s, v] as the head gives them: transposed, with padding that must not count."""
    logits = scale * torch.randn(LENGTH, ROWS, PADDED, generator=torch.Generator().manual_seed(0))
    logits[..., VOCAB:] = 1000
    return logits.to(dtype).transpose(0, 1)


def made_labels() -> torch.Tensor:
    labels = torch.randint(VOCAB, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    labels[:, :3] = -100
    return labels


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_losses_are_those_of_fp64_and_gradients_too_but_for_one_rounding(
    dtype: torch.dtype, scale: float, device: torch.device
) -> None:
    logits, labels = made_logits(dtype, scale), made_labels()
    exact = logits.double().requires_grad_()
    expected = F.cross_entropy(exact[..., :VOCAB].flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    weights = torch.linspace(0.5, 2.0, LENGTH)
    (expected * weights).sum().backward()

    on_device = logits.to(device).requires_grad_()
    losses = vocab_parallel_cross_entropy(on_device, labels.to(device), SINGLE, vocab_size=VOCAB)
    (losses * weights.to(device)).sum().backward()

    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.cpu().double(), expected.detach(), rtol=1e-5, atol=1e-5)
    assert on_device.grad is not None
    assert exact.grad is not None
    assert on_device.grad.dtype == dtype
    assert not on_device.grad[..., VOCAB:].any()
    assert not on_device.grad[:, :3].any()
    # fp16 has no normal numbers below 6e-5; below that its steps are 6e-8.
    unit, floor = torch.finfo(dtype).eps, 6e-8 if dtype == torch.float16 else 1e-8
    torch.testing.assert_close(on_device.grad.cpu().double(), exact.grad, rtol=max(unit, 2e-5), atol=floor)
