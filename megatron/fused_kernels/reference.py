"""Each operation that may have a fused kernel, in plain torch: the specification, the CPU path and the kernels' test.

Whatever the input's type, statistics and products are computed in at least fp32 and rounded once, to the input's type, at the end
(torch's own operations do that by themselves). What is composed of several operations of torch is rounded after each of them, as it is in
a model that computes them one after the other; a kernel rounds once, and so is off by less.
`...` are any leading dimensions, `h` is the hidden size, `d` the head size, `r` the rotated part of it, `w` the width of an MLP.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.mpu.dropping import drop


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


def swiglu(widened: Tensor) -> Tensor:
    """`up * silu(gate)` with [up | gate] = widened [..., 2 w] -> [..., w]."""
    up, gate = widened.chunk(2, dim=-1)
    return gated(up, gate, F.silu)


def geglu(widened: Tensor) -> Tensor:
    """`up * gelu_erf(gate)` with [up | gate] = widened [..., 2 w] -> [..., w]."""
    up, gate = widened.chunk(2, dim=-1)
    return gated(up, gate, gelu_erf)


def bias_gelu_tanh(x: Tensor, bias: Tensor) -> Tensor:
    """`gelu_tanh(x + bias)`, x [..., w], bias [w]."""
    return gelu_tanh(x + bias)


def bias_dropout_add(
    x: Tensor, bias: Tensor | None, residual: Tensor, rows: Tensor | None, probability: float
) -> Tensor:
    """`residual + dropout(x + bias)`, x and residual [..., h], bias [h], None = without it.

    rows: int32 [...], a mixed word for each row of x, from which its mask follows as in `megatron.mpu.dropping.drop`; None = nothing is
    dropped, whatever the probability.
    """
    moved = x if bias is None else x + bias
    return residual + (moved if rows is None else drop(moved, rows, probability))


def causal_softmax(scores: Tensor, *, scale: float | None = None) -> Tensor:
    """`softmax(scale * scores)` of scores [b, n, s, S], where the last of s queries sees all of S keys and each one before it one less.

    A query that sees no key, where s is larger than S, gets NaN.
    """
    queries, keys = scores.shape[-2:]
    hidden = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).triu(keys - queries + 1)
    return masked_softmax(scores, hidden, scale=scale)


def masked_softmax(scores: Tensor, hidden: Tensor, *, scale: float | None = None) -> Tensor:
    """`softmax(scale * scores)` of scores [b, n, s, S] over the keys that are not hidden.

    hidden: bool, broadcastable to [b, n, s, S]; a query that sees no key gets NaN.
    """
    scaled = scores if scale is None else _at_least_fp32(scores) * scale
    return scaled.masked_fill(hidden, float("-inf")).softmax(dim=-1).to(scores.dtype)


def softmax_statistics(logits: Tensor, labels: Tensor, *, real: int) -> tuple[Tensor, Tensor, Tensor]:
    """The maximum, the sum of exp(logit - maximum), and the label's logit, of each row's first `real` columns: [rows] each.

    logits [rows, v/t], labels int64 [rows]; in at least fp32. The logit of a label below 0 or from `real` on is 0. With real = 0 they are
    -inf, 0 and 0.
    """
    wide = _at_least_fp32(logits[:, :real])
    if real:
        maximum = wide.amax(dim=-1)
        exponentials = torch.sub(wide, maximum.unsqueeze(-1)).exp_().sum(dim=-1)
    else:
        maximum, exponentials = wide.new_full(labels.shape, -torch.inf), wide.new_zeros(labels.shape)
    is_here = (labels >= 0) & (labels < real)
    label_logit = logits.gather(-1, labels.where(is_here, 0).unsqueeze(-1)).squeeze(-1)
    return maximum, exponentials, label_logit.to(wide.dtype).where(is_here, 0)


def softmax_gradient_(
    logits: Tensor, labels: Tensor, log_partition: Tensor, coefficients: Tensor, *, real: int
) -> Tensor:
    """Replace each logit [rows, v/t] by `coefficient * (exp(logit - log_partition) - [its column is the label])`, and return them.

    labels int64 [rows], log_partition and coefficients [rows] in at least fp32. Columns from `real` on become 0; so a label from there on,
    like one below 0, is nowhere.
    """
    gradients = torch.sub(logits, log_partition.unsqueeze(-1)).exp_()
    is_here = (labels >= 0) & (labels < real)
    gradients.scatter_add_(-1, labels.where(is_here, 0).unsqueeze(-1), -is_here.to(gradients.dtype).unsqueeze(-1))
    gradients *= coefficients.unsqueeze(-1)
    gradients[:, real:] = 0
    return logits.copy_(gradients)


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
