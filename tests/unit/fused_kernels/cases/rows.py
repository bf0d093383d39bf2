"""Calls of the operations on rows: norms, softmax, cross entropy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.unit.fused_kernels.cases.case import Case, random, random_integers


def rms_norm(*shape: int, epsilon: float = 1e-5) -> dict[str, Any]:
    return {"x": random(*shape, scale=3, offset=1), "scale": random(shape[-1], offset=1), "epsilon": epsilon}


def layer_norm(*shape: int, weight: bool = True, bias: bool = True, epsilon: float = 1e-5) -> dict[str, Any]:
    """A mean far from 0, which a variance from sums of squares would not survive."""
    return {
        "x": random(*shape, scale=3, offset=10),
        "weight": random(shape[-1], offset=1) if weight else None,
        "bias": random(shape[-1]) if bias else None,
        "epsilon": epsilon,
    }


def causal_softmax(*shape: int, scale: float | None = None) -> dict[str, Any]:
    return {"scores": random(*shape, scale=2), "scale": scale}


def masked_softmax(*shape: int, of: tuple[int, ...], scale: float | None = None) -> dict[str, Any]:
    """`of`: the shape of the mask, which hides about half of the keys, but never the first."""
    hidden = random(*of) > 0
    hidden[..., 0] = False
    return {"scores": random(*shape, scale=2), "hidden": hidden, "scale": scale}


def nothing_to_see() -> dict[str, Any]:
    return {**masked_softmax(1, 1, 2, 5, of=(2, 5)), "hidden": torch.ones(2, 5, dtype=torch.bool)}


def of_softmax(
    operation: str, label: str, arguments: Callable[[], dict[str, Any]], strided: frozenset[str] = frozenset()
) -> Case:
    """The backward pass has the weights in the type of the scores, and where they are peaked most of the gradient cancels."""
    return Case(operation, label, arguments, strided=strided, slack=4.0)


def labels_of(rows: int, columns: int) -> Tensor:
    """Some are left of the columns that count and some right of them."""
    return random_integers(rows, low=-columns // 3, high=columns + columns // 3 + 1)


def softmax_statistics(rows: int, columns: int, *, real: int) -> dict[str, Any]:
    return {"logits": random(rows, columns, scale=4), "labels": labels_of(rows, real), "real": real}


def softmax_gradient(rows: int, columns: int, *, real: int) -> dict[str, Any]:
    logits = random(rows, columns, scale=2)
    return {
        "logits": logits,
        "labels": labels_of(rows, real),
        "log_partition": logits.logsumexp(dim=-1) + 0.5,
        "coefficients": random(rows),
        "real": real,
    }


def cross_entropy(
    label: str, rows: int, columns: int, *, real: int, strided: frozenset[str] = frozenset()
) -> list[Case]:
    in_place = frozenset({"logits", "log_partition", "coefficients"})
    return [
        Case(
            "softmax_statistics",
            label,
            partial(softmax_statistics, rows, columns, real=real),
            constants=frozenset({"logits"}),
            strided=strided,
        ),
        Case(
            "softmax_gradient_",
            label,
            partial(softmax_gradient, rows, columns, real=real),
            constants=in_place,
            fp32=frozenset({"log_partition", "coefficients"}),
            strided=strided,
        ),
    ]


SMALL = [
    Case("rms_norm", "several rows in a tile", partial(rms_norm, 3, 5, 72)),
    Case("rms_norm", "one long row", partial(rms_norm, 1, 2100)),
    Case("rms_norm", "single elements", partial(rms_norm, 7, 1, epsilon=2.0)),
    Case("rms_norm", "more tiles than programs", partial(rms_norm, 13, 1100)),
    Case("rms_norm", "strided", partial(rms_norm, 9, 24), strided=frozenset({"x", "scale"})),
    Case("rms_norm", "empty", partial(rms_norm, 0, 8)),
    Case("layer_norm", "several rows in a tile", partial(layer_norm, 3, 5, 72)),
    Case("layer_norm", "more tiles than programs", partial(layer_norm, 13, 1100)),
    Case("layer_norm", "weight alone", partial(layer_norm, 5, 33, bias=False)),
    Case("layer_norm", "no parameters", partial(layer_norm, 5, 33, weight=False, bias=False)),
    Case("layer_norm", "strided", partial(layer_norm, 9, 24), strided=frozenset({"x", "weight", "bias"})),
    Case("layer_norm", "empty", partial(layer_norm, 0, 8)),
    of_softmax("causal_softmax", "square", partial(causal_softmax, 2, 3, 17, 17, scale=0.3)),
    of_softmax("causal_softmax", "last queries", partial(causal_softmax, 2, 2, 3, 40)),
    of_softmax("causal_softmax", "one query", partial(causal_softmax, 1, 2, 1, 2100, scale=-1.5)),
    of_softmax("causal_softmax", "one key", partial(causal_softmax, 1, 2, 1, 1)),
    of_softmax("causal_softmax", "strided", partial(causal_softmax, 2, 2, 9, 9), strided=frozenset({"scores"})),
    of_softmax("causal_softmax", "empty", partial(causal_softmax, 0, 2, 3, 3)),
    of_softmax(
        "masked_softmax", "a mask for all heads", partial(masked_softmax, 2, 3, 7, 19, of=(2, 1, 7, 19), scale=3.0)
    ),
    of_softmax("masked_softmax", "a mask for all", partial(masked_softmax, 2, 3, 7, 19, of=(7, 19))),
    of_softmax("masked_softmax", "a mask for all queries", partial(masked_softmax, 2, 3, 7, 19, of=(2, 1, 1, 19))),
    of_softmax("masked_softmax", "a mask for each", partial(masked_softmax, 2, 3, 7, 19, of=(2, 3, 7, 19), scale=-1.0)),
    Case("masked_softmax", "nothing to see", nothing_to_see, constants=frozenset({"scores"})),
    *cross_entropy("one piece", 5, 100, real=97),
    *cross_entropy("several pieces", 3, 9000, real=8500),
    *cross_entropy("padding alone", 3, 8, real=0),
    *cross_entropy("one column", 3, 1, real=1),
    *cross_entropy("strided", 4, 50, real=50, strided=frozenset({"logits"})),
    *cross_entropy("empty", 0, 8, real=8),
]
LARGE = [
    Case("rms_norm", "hidden", partial(rms_norm, 2048, 4, 4096)),
    Case("rms_norm", "odd hidden", partial(rms_norm, 300, 3, 5001)),
    Case("rms_norm", "heads", partial(rms_norm, 4, 32, 2048, 128)),
    Case("layer_norm", "hidden", partial(layer_norm, 2048, 4, 4096)),
    Case("layer_norm", "odd hidden", partial(layer_norm, 300, 3, 5001)),
    Case("layer_norm", "no parameters", partial(layer_norm, 2048, 4, 2048, weight=False, bias=False)),
    of_softmax("causal_softmax", "2048 tokens", partial(causal_softmax, 2, 16, 2048, 2048, scale=2.0)),
    of_softmax("causal_softmax", "odd", partial(causal_softmax, 3, 5, 777, 1001)),
    of_softmax("masked_softmax", "2048 tokens", partial(masked_softmax, 2, 16, 2048, 2048, of=(2, 1, 2048, 2048))),
    of_softmax("masked_softmax", "odd", partial(masked_softmax, 3, 5, 777, 1001, of=(777, 1001), scale=0.5)),
    *cross_entropy("a large vocabulary", 2048, 50_304, real=50_257),
]
