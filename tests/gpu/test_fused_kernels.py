"""The fused kernels on the GPU: the values and gradients of plain torch, at awkward sizes and at those of a real model."""

from __future__ import annotations

import pytest
import torch

from megatron.fused_kernels import dispatch
from tests.unit.fused_kernels.cases import LARGE, SMALL, Case
from tests.unit.fused_kernels.comparing import TYPES, excesses, results

pytestmark = pytest.mark.gpu

FIRST = {case.operation: case for case in reversed(SMALL)}
PAST_32_BITS = 2**31 // 4096 + 8  # rows of 4096 elements


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", [*SMALL, *LARGE], ids=lambda case: case.name)
def test_values_and_gradients_are_those_of_plain_torch(case: Case, dtype: str, device: torch.device) -> None:
    found = excesses(case, TYPES[dtype], device)
    assert max(found.values()) <= 1, found


@pytest.mark.parametrize("operation", dispatch.MODULES)
def test_compiled_it_has_the_same_numbers(operation: str, device: torch.device) -> None:
    compiled = torch.compile(dispatch.fused(operation), fullgraph=True)
    found = results(compiled, FIRST[operation], torch.bfloat16, device)
    expected = results(dispatch.fused(operation), FIRST[operation], torch.bfloat16, device)
    for name, value in expected.items():
        # The kernels are the same; what torch sums behind them it may sum in another order.
        torch.testing.assert_close(found[name], value, rtol=2**-7, atol=1e-5, msg=name)


def test_tensors_may_be_larger_than_32_bits_count(device: torch.device) -> None:
    x = torch.randn(PAST_32_BITS, 4096, dtype=torch.bfloat16, device=device).requires_grad_()
    scale = torch.ones(4096, dtype=torch.bfloat16, device=device)
    last = x.detach()[-8:].clone().requires_grad_()
    normed = dispatch.fused("rms_norm")(x, scale, epsilon=1e-5)
    expected = dispatch.fused("rms_norm")(last, scale, epsilon=1e-5)
    assert torch.equal(normed[-8:], expected)
    gradient = torch.randn_like(normed)
    normed.backward(gradient)
    expected.backward(gradient[-8:])
    assert x.grad is not None
    assert last.grad is not None
    assert torch.equal(x.grad[-8:], last.grad)
