"""The products of linear layers in 8-bit floating point, each operand scaled by its own largest value (Micikevicius et al. 2022,
https://arxiv.org/abs/2209.05433). Sums are kept in fp32, weights and what is between the layers in the type they have.

A scale is a power of two, the largest for which the values fit. Scaling is exact therefore, and quantising is one rounding to the
mantissa of the 8-bit type (3 bits of e4m3, 2 of e5m2) that is the same whatever the scale, except for values more than 2^13 (e4m3) or 2^28
(e5m2) below the largest, which lose bits or vanish. So nothing is communicated about scales: a rank that holds a part of a tensor scales it
by the largest value of that part, and numbers depend on the layout by those smallest values and the order of sums alone.

An operand with an infinity or NaN has a scale of NaN, so that what is computed of it is NaN, never silently finite: the step is skipped or
the run stopped as it would be without fp8.

Shapes: `in`, `out` features of this rank; `m` and `n` rows, `k` what a product sums over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from megatron.errors import NeoXError

E4M3 = torch.float8_e4m3fn
E5M2 = torch.float8_e5m2
MULTIPLE = 16
"""Features of a layer, on each rank, are a multiple of this: the tensor cores take no others."""

_FIRST_CAPABILITY = (8, 9)
_SMALLEST = 2.0**-100  # what is below is scaled as this is, so that no scale or its inverse overflows
_EXPONENT = 0x7F800000  # the bits of a float32 that hold its exponent


class Quantised(NamedTuple):
    """An 8-bit matrix [m, k] and the scale that gives its values back: fp32, of shape [m, 1] or (), a power of two."""

    values: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Fp8Products:
    """The products of `Products`, with both operands quantised.

    rowwise: a scale for each row (for each vector that a product sums over) instead of one for the tensor; gradient_type: of the gradients
    of outputs, e5m2 for their range or e4m3 for its precision, inputs and weights being e4m3; weight_gradient_too: False computes the
    weight's gradient in the type of the operands. The features of layers are multiples of `MULTIPLE`; the number of tokens is free.
    """

    rowwise: bool
    gradient_type: torch.dtype = E5M2
    weight_gradient_too: bool = True

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See Products. Its sums may be kept with the 14 bits that Hopper's faster mode has, which the gradients' are not."""
        rows = multiply(
            quantise(x.flatten(0, -2), E4M3, rowwise=self.rowwise),
            quantise(weight, E4M3, rowwise=self.rowwise),
            bias=bias,
            dtype=x.dtype,
            fast_sums=True,
        )
        return _unflatten(rows, x)

    def input_gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """See Products."""
        rows = multiply(
            quantise(gradient.flatten(0, -2), self.gradient_type, rowwise=self.rowwise),
            quantise(weight.T, E4M3, rowwise=self.rowwise),
            dtype=gradient.dtype,
        )
        return _unflatten(rows, gradient)

    def weight_gradient(self, gradient: Tensor, x: Tensor) -> Tensor:
        """See Products."""
        if not self.weight_gradient_too:
            return gradient.T @ x
        missing = -len(x) % MULTIPLE
        if missing:  # the sum is over the tokens here: some of zeros change nothing
            gradient, x = functional.pad(gradient, (0, 0, 0, missing)), functional.pad(x, (0, 0, 0, missing))
        return multiply(
            quantise(gradient.T, self.gradient_type, rowwise=self.rowwise),
            quantise(x.T, E4M3, rowwise=self.rowwise),
            dtype=gradient.dtype,
        )


def quantise(matrix: Tensor, dtype: torch.dtype, *, rowwise: bool) -> Quantised:
    """`matrix` [m, k] in an 8-bit type, row after row in memory; its rows or all of it scaled to the range of the type."""
    if rowwise:
        largest = torch.linalg.vector_norm(matrix, ord=float("inf"), dim=1, keepdim=True)
    else:
        largest = torch.linalg.vector_norm(matrix, ord=float("inf"))
    largest = largest.float()
    room = torch.finfo(dtype).max / largest.clamp(min=_SMALLEST)
    factor = room.view(torch.int32).bitwise_and(_EXPONENT).view(torch.float32)  # rounded down to a power of two
    scale = torch.where(largest.isfinite(), factor.reciprocal(), float("nan"))
    return Quantised((matrix * factor.to(matrix.dtype)).to(dtype).contiguous(), scale)


def _unflatten(rows: Tensor, like: Tensor) -> Tensor:
    # No view for autograd, so that what is summed over ranks may be overwritten.
    result: Tensor = torch.ops.aten._unsafe_view(rows, [*like.shape[:-1], rows.shape[-1]])
    return result


def multiply(
    a: Quantised, b: Quantised, *, dtype: torch.dtype, bias: Tensor | None = None, fast_sums: bool = False
) -> Tensor:
    """a [m, k] and b [n, k], scaled alike -> a b^T + bias [m, n] in `dtype`: by the tensor cores of a GPU, or the same elsewhere.

    fast_sums: a GPU may keep fewer bits of the sums where that is faster.
    """
    assert b.values.shape[0] % MULTIPLE == 0, f"a layer of {b.values.shape[0]} features"
    assert b.values.shape[1] % MULTIPLE == 0, f"a sum over {b.values.shape[1]} products"
    if a.values.is_cuda:
        return by_tensor_cores(a, b, dtype=dtype, bias=bias, fast_sums=fast_sums)
    # 8-bit values and scales by powers of two are exact in bf16, and in fp32.
    return functional.linear(a.values.to(dtype) * a.scale.to(dtype), b.values.to(dtype) * b.scale.to(dtype), bias)


def by_tensor_cores(a: Quantised, b: Quantised, *, dtype: torch.dtype, bias: Tensor | None, fast_sums: bool) -> Tensor:
    """`multiply` by torch's scaled product, which a CPU has too, for tests: it takes some 5 times as long there as a bf16 product."""
    # It wants the second matrix column after column, and its scales beside one another.
    return torch._scaled_mm(
        a.values, b.values.T, a.scale, b.scale.t(), bias=bias, out_dtype=dtype, use_fast_accum=fast_sums
    )


def check_device(device: torch.device | str) -> None:
    """Raise NeoXError when `device` is a GPU without 8-bit matrix products."""
    device = torch.device(device)
    if device.type != "cuda":
        return
    name = torch.cuda.get_device_name(device)
    if torch.version.hip:
        raise NeoXError(f'"fp8" is not supported on AMD GPUs ({name}) yet: set it to "none"')
    capability = torch.cuda.get_device_capability(device)
    if capability < _FIRST_CAPABILITY:
        have, need = (".".join(map(str, version)) for version in (capability, _FIRST_CAPABILITY))
        raise NeoXError(
            f'"fp8" needs a GPU of compute capability {need} or more (Ada, Hopper, Blackwell), and {name} has {have}: '
            'set it to "none"'
        )
