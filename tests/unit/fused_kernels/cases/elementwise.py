"""Calls of the operations on single elements: rotation, gates, biases with GELU, biases with dropout and residual."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from megatron.mpu.random_bits import numbered_words
from tests.unit.fused_kernels.cases.case import Case, random


def rotary(batch: int, heads: int, length: int, size: int, rotated: int, rows: int = 1) -> dict[str, Any]:
    """Heads as they lie in the output of a projection, [s, b, n, d]; rows: of positions, 1 = the same in each row of the batch."""
    angles = random(rows, 1, length, rotated // 2, scale=5).repeat(1, 1, 1, 2)
    heads_of_tokens = random(length, batch, heads, size).permute(1, 2, 0, 3)
    return {"x": heads_of_tokens, "cosine": angles.cos(), "sine": angles.sin()}


def gated(*shape: int) -> dict[str, Any]:
    return {"widened": random(*shape, scale=3)}


def bias_gelu(*shape: int) -> dict[str, Any]:
    return {"x": random(*shape, scale=3), "bias": random(shape[-1])}


def bias_dropout_add(
    *shape: int, probability: float = 0.3, use_bias: bool = True, is_dropped: bool = True
) -> dict[str, Any]:
    count = torch.Size(shape[:-1]).numel()
    return {
        "x": random(*shape),
        "bias": random(shape[-1], offset=1) if use_bias else None,
        "residual": random(*shape, offset=2),
        "rows": numbered_words(5, count, torch.device("cpu")).view(shape[:-1]) if is_dropped else None,
        "probability": probability,
    }


ANGLES: dict[str, Any] = dict.fromkeys(("constants", "fp32"), frozenset({"cosine", "sine"}))
SMALL = [
    Case("rotary", "whole heads", partial(rotary, 2, 4, 3, 16, 16), **ANGLES),
    Case("rotary", "a part of odd heads, positions by row", partial(rotary, 2, 3, 5, 23, 6, rows=2), **ANGLES),
    Case("rotary", "strided", partial(rotary, 1, 2, 3, 8, 8), strided=frozenset({"x", "cosine"}), **ANGLES),
    Case("rotary", "more heads than a program takes", partial(rotary, 1, 20, 2, 256, 256), **ANGLES),
    Case("rotary", "empty", partial(rotary, 1, 2, 0, 8, 4), **ANGLES),
    *(
        case
        for name in ("swiglu", "geglu")
        for case in (
            Case(name, "several rows", partial(gated, 3, 2, 2 * 40)),
            Case(name, "wider than a program takes", partial(gated, 2, 2 * 1100)),
            Case(name, "strided", partial(gated, 3, 2 * 7), strided=frozenset({"widened"})),
            Case(name, "empty", partial(gated, 0, 8)),
        )
    ),
    Case("bias_gelu_tanh", "several rows", partial(bias_gelu, 3, 5, 72)),
    Case("bias_gelu_tanh", "wider than a program takes", partial(bias_gelu, 2, 1100)),
    Case("bias_gelu_tanh", "more rows than programs", partial(bias_gelu, 21, 520)),
    Case("bias_gelu_tanh", "strided", partial(bias_gelu, 9, 24), strided=frozenset({"x", "bias"})),
    Case("bias_gelu_tanh", "empty", partial(bias_gelu, 0, 8)),
    *(
        Case(
            "bias_dropout_add",
            f"dropped with {probability}",
            partial(bias_dropout_add, 3, 5, 72, probability=probability),
        )
        for probability in (2**-31, 0.1, 0.5, 0.999)
    ),
    Case("bias_dropout_add", "wider than a program takes", partial(bias_dropout_add, 2, 1100)),
    Case("bias_dropout_add", "more rows than programs", partial(bias_dropout_add, 21, 520)),
    Case("bias_dropout_add", "strided", partial(bias_dropout_add, 9, 24), strided=frozenset({"x", "bias", "residual"})),
    Case("bias_dropout_add", "no bias", partial(bias_dropout_add, 3, 33, use_bias=False)),
    Case("bias_dropout_add", "nothing dropped", partial(bias_dropout_add, 3, 33, is_dropped=False)),
    Case("bias_dropout_add", "only added", partial(bias_dropout_add, 3, 33, use_bias=False, is_dropped=False)),
    Case("bias_dropout_add", "empty", partial(bias_dropout_add, 0, 8)),
]
LARGE = [
    Case("rotary", "whole heads", partial(rotary, 4, 32, 2048, 128, 128), **ANGLES),
    Case("rotary", "a quarter", partial(rotary, 4, 16, 2048, 128, 32, rows=4), **ANGLES),
    Case("swiglu", "hidden", partial(gated, 2048, 4, 2 * 11008)),
    Case("geglu", "hidden", partial(gated, 2048, 4, 2 * 11008)),
    Case("bias_gelu_tanh", "hidden", partial(bias_gelu, 2048, 4, 8192)),
    Case("bias_dropout_add", "hidden", partial(bias_dropout_add, 2048, 4, 4096)),
    Case("bias_dropout_add", "odd hidden", partial(bias_dropout_add, 300, 3, 5001)),
]
