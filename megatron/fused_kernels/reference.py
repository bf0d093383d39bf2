"""Each operation that may have a fused kernel, in plain torch: the specification, the CPU path and the kernels' test.

Whatever the input's type, statistics and products are computed in at least fp32 and rounded once, to the input's type, at the end
(torch's own operations do that by themselves).
`...` are any leading dimensions, `h` is the hidden size, `d` the head size, `r` the rotated part of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, epsilon: float) -> Tensor:
    """`(x - mean) / sqrt(variance + epsilon) * weight + bias` over the last dimension, x [..., h]; None = without that factor."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


def rms_norm(x: Tensor, scale: Tensor, *, epsilon: float) -> Tensor:
    """`x / sqrt(mean(x^2) + epsilon) * scale` over the last dimension, x [..., h]."""
    return F.rms_norm(x, x.shape[-1:], scale, epsilon)


def scale_norm(x: Tensor, gain: Tensor, *, epsilon: float) -> Tensor:
    """`x / max(|x|, epsilon) * gain` over the last dimension, x [..., h], gain [1]."""
    wide = _at_least_fp32(x)
    length: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).clamp(min=epsilon)
    return (wide / length * gain).to(x.dtype)


def rotary(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the first `r` features of x [..., d] by angles whose cosine and sine [..., r] are given; the rest pass unchanged.

    Feature i is paired with feature i + r/2 ("rotate half"), so both halves of `cosine` and `sine` are equal.
    """
    width = cosine.shape[-1]
    rotated, passed = _at_least_fp32(x[..., :width]), x[..., width:]
    first, second = rotated.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    rotated = (rotated * cosine + turned * sine).to(x.dtype)
    return torch.cat((rotated, passed), dim=-1) if passed.shape[-1] else rotated


def gelu_erf(x: Tensor) -> Tensor:
    """`x * Phi(x)` with the exact normal distribution function."""
    return F.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """`x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, the usual approximation of `gelu_erf`."""
    return F.gelu(x, approximate="tanh")


def gated(up: Tensor, gate: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """`up * activation(gate)`; with SiLU it is SwiGLU, with GELU GEGLU."""
    return up * activation(gate)


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
