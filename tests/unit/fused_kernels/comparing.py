"""How far an operation, fused or plain, is from the same operation in plain torch in fp64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from megatron.fused_kernels import dispatch
from tests.unit.fused_kernels.cases import Case
from tests.unit.fused_kernels.cases.case import random

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Sums of thousands of terms in fp32, relative to the largest result: measured at most 1e-6.
FP32_LIMIT = 3e-6


def excesses(case: Case, dtype: torch.dtype, device: torch.device, *, truncates_bf16: bool = False) -> dict[str, float]:
    """By which factor the fused operation is further off than allowed, for each output and gradient; right is 1 at most.

    Allowed is what rounding the exact result once may do, or what plain torch does in the same type, whichever is more.
    truncates_bf16: whether the device cuts fp32 off to get bf16, which is off by up to twice as much as rounding.
    """
    exact = results(dispatch.plain(case.operation), case, dtype, device, exact=True)
    plain = results(dispatch.plain(case.operation), case, dtype, device)
    found = results(dispatch.fused(case.operation), case, dtype, device)
    assert found.keys() == plain.keys() == exact.keys()
    for name, each in found.items():
        assert (each.dtype, each.shape) == (plain[name].dtype, plain[name].shape), name
    return {
        name: _deviation(each, exact[name])
        / max(
            _rounding(each.dtype, truncates_bf16) * (case.slack if each.dtype != torch.float32 else 1),
            1.1 * _deviation(plain[name], exact[name]),
        )
        for name, each in found.items()
    }


def results(
    operation: Callable[..., Any], case: Case, dtype: torch.dtype, device: torch.device, *, exact: bool = False
) -> dict[str, Tensor]:
    """The outputs of a call, and the gradients of a fixed weighted sum of them. exact: in fp64, from inputs that are rounded all the same."""
    leaves, arguments = {}, {}
    for name, value in case.arguments().items():
        if isinstance(value, Tensor):
            if value.is_floating_point():
                rounded = value.to(torch.float32 if name in case.fp32 else dtype, copy=True)
                leaf = (rounded.double() if exact else rounded).to(device)
                leaves[name] = leaf.requires_grad_(name not in case.constants)
                value = torch.cat((leaf, leaf), dim=-1)[..., : leaf.shape[-1]] if name in case.strided else leaf
            else:
                value = value.to(device)
        arguments[name] = value
    outputs = operation(**arguments)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if any(each.requires_grad for each in outputs):
        torch.autograd.backward(outputs, [_weights(each, dtype) for each in outputs])
    named = {f"output {number}": each.detach() for number, each in enumerate(outputs)}
    gradients = {f"gradient of {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return named | gradients


def _weights(output: Tensor, dtype: torch.dtype) -> Tensor:
    return random(1, *output.shape)[0].to(dtype).to(output)  # other numbers than those of an input of this shape


def _rounding(dtype: torch.dtype, truncates_bf16: bool) -> float:
    """What rounding to a type may change, relative to the value."""
    if dtype == torch.float32:
        return FP32_LIMIT
    return torch.finfo(dtype).eps / (1 if truncates_bf16 and dtype == torch.bfloat16 else 2)


def _deviation(found: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest exact value; values that are not finite must be the same."""
    found, finite = found.double(), exact.isfinite()
    torch.testing.assert_close(found[~finite], exact[~finite], equal_nan=True)
    difference = (found - exact)[finite].abs()
    return float(difference.max() / exact[finite].abs().max().clamp(min=1e-30)) if difference.numel() else 0.0
