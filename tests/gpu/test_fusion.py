"""Models with every fused kernel switched on compute on the GPU what they compute on the CPU without, and drop the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.fused_kernels import dispatch
from megatron.mpu.random_bits import numbered_words
from tests.gpu.compare import CPU, FP32_LIMIT, deviation, distance, furthest, never_waiting
from tests.gpu.test_model import HALF, build, joined, loss_and_gradients
from tests.unit.fused_kernels.fused_model import FUSION
from tests.unit.model.builders import VARIANTS

pytestmark = pytest.mark.gpu

DROPOUT = {"hidden_dropout": 0.2, "attention_dropout": 0.2}
PAST_32_BITS = 2**31 // 4096 + 8  # rows of 4096 elements


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_in_fp32_has_the_numbers_and_masks_of_the_cpu(variant: str, device: torch.device) -> None:
    settings = {**VARIANTS[variant], **DROPOUT}
    fused = build({**settings, **FUSION}, device)
    loss_and_gradients(fused, device)
    fused.zero_grad()
    with never_waiting(device):
        found = loss_and_gradients(fused, device)
    expected = loss_and_gradients(build(settings, CPU), CPU)
    # Biases of keys move all scores of a query alike where nothing is rotated: their gradients are zero but for rounding.
    zero = {
        name for name, value in expected.items() if name.endswith("key_layernorm.bias") and value.abs().max() < 1e-5
    }
    error, where = furthest(*({name: each[name] for name in each if name not in zero} for each in (found, expected)))
    assert error <= FP32_LIMIT, where


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_in_half_precision_is_no_further_off_than_without(
    variant: str, dtype: torch.dtype, device: torch.device
) -> None:
    settings = {**VARIANTS[variant], "hidden_dropout": 0.2}
    expected = loss_and_gradients(build(settings, CPU), CPU)
    off = []
    for fusion in (FUSION, {}):
        found = loss_and_gradients(build({**settings, **fusion}, device, dtype), device)
        loss, whole = deviation(found.pop("loss"), expected["loss"]), joined(found)
        rest = joined({name: value for name, value in expected.items() if name != "loss"})
        off.append((loss, distance(whole, rest)))
    (fused_loss, fused_rest), (_, plain_rest) = off
    assert fused_loss <= torch.finfo(dtype).eps
    assert fused_rest <= 1.2 * plain_rest


LARGE: dict[str, Callable[[int, torch.device], dict[str, Any]]] = {
    "swiglu": lambda rows, device: {"widened": numbers(rows, device)},
    "geglu": lambda rows, device: {"widened": numbers(rows, device)},
    "bias_gelu_tanh": lambda rows, device: {"x": numbers(rows, device), "bias": numbers(1, device)[0]},
    "bias_dropout_add": lambda rows, device: {
        "x": numbers(rows, device),
        "bias": numbers(1, device)[0],
        "residual": numbers(rows, device),
        "rows": numbered_words(0, rows, device),
        "probability": 0.1,
    },
}


def numbers(rows: int, device: torch.device) -> Tensor:
    return torch.randn(rows, 4096, dtype=torch.bfloat16, device=device)


@pytest.mark.parametrize("operation", LARGE)
def test_tensors_may_be_larger_than_32_bits_count(operation: str, device: torch.device) -> None:
    kernel = dispatch.fused(operation)
    arguments = LARGE[operation](PAST_32_BITS, device)
    last = {
        name: value[-8:] if name in ("widened", "x", "residual", "rows") else value for name, value in arguments.items()
    }
    (whole, first), (end, last_one) = (with_gradient(kernel, each) for each in (arguments, last))
    assert torch.equal(whole[-8:], end)
    assert torch.equal(first[-8:], last_one)


def with_gradient(kernel: Callable[..., Tensor], arguments: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of its sum by the first argument."""
    (name, value), *_ = arguments.items()
    leaf = value.detach().requires_grad_()
    output = kernel(**{**arguments, name: leaf})
    (gradient,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    return output.detach(), gradient


def test_heads_may_be_larger_than_32_bits_count(device: torch.device) -> None:
    x = torch.randn(1, 32, PAST_32_BITS, 128, dtype=torch.bfloat16, device=device)
    angles = torch.randn(1, 1, PAST_32_BITS, 64, device=device).repeat(1, 1, 1, 2)
    kernel = dispatch.fused("rotary")
    whole = kernel(x, angles.cos(), angles.sin())
    end = kernel(*(each[:, :, -8:] for each in (x, angles.cos(), angles.sin())))
    assert torch.equal(whole[:, :, -8:], end)
