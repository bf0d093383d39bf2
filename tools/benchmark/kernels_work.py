"""What kernels.py measures: calls of a model with 8,192 tokens of 4,096 channels, and the memory that each one has to move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from megatron.mpu.random_bits import numbered_words

TOKENS, HIDDEN, WIDTH, HEADS, LENGTH, VOCABULARY = 8192, 4096, 11008, 32, 2048, 50304


@dataclass(frozen=True)
class Make:
    """Makes the tensors of a call: the type and the device, and by how much everything is smaller than in the model."""

    dtype: torch.dtype
    device: torch.device
    shrink: int = 1

    def size(self, *shape: int) -> tuple[int, ...]:
        return tuple(max(each // self.shrink, 2) for each in shape)

    def random(self, *shape: int, learned: bool = True) -> Tensor:
        """Normal numbers of this shape, shrunk; learned: whether a gradient is asked for."""
        numbers = torch.randn(self.size(*shape), dtype=self.dtype, device=self.device)
        return numbers.requires_grad_(learned)

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(self.size(high)[0], self.size(*shape), dtype=dtype, device=self.device)


@dataclass(frozen=True)
class Work:
    """An operation and its arguments, of which the first tensor is the unit of what is moved.

    forward, backward: how many of these units must be read or written, at least; 0: there is no backward pass.
    """

    operation: str
    arguments: Callable[[Make], dict[str, Any]]
    forward: float
    backward: float = 0.0


def _rms_norm(make: Make) -> dict[str, Any]:
    return {"x": make.random(TOKENS, HIDDEN), "scale": make.random(HIDDEN), "epsilon": 1e-5}


def _layer_norm(make: Make) -> dict[str, Any]:
    parameters = {"weight": make.random(HIDDEN), "bias": make.random(HIDDEN)}
    return {"x": make.random(TOKENS, HIDDEN), **parameters, "epsilon": 1e-5}


def _causal_softmax(make: Make) -> dict[str, Any]:
    return {"scores": make.random(2, HEADS, LENGTH, LENGTH)}


def _masked_softmax(make: Make) -> dict[str, Any]:
    scores = make.random(2, HEADS, LENGTH, LENGTH)
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=make.device).triu(1)
    return {"scores": scores, "hidden": hidden}


def _statistics(make: Make) -> dict[str, Any]:
    logits = make.random(TOKENS, VOCABULARY, learned=False)
    return {"logits": logits, "labels": make.integers(VOCABULARY, TOKENS), "real": logits.shape[1] - 1}


def _gradient(make: Make) -> dict[str, Any]:
    rows = {name: torch.ones(make.size(TOKENS), device=make.device) for name in ("log_partition", "coefficients")}
    return {**_statistics(make), **rows}


def _rotary(make: Make) -> dict[str, Any]:
    projected = make.random(LENGTH, 4, 3, HEADS, HIDDEN // HEADS)
    heads = projected[:, :, 0].permute(1, 2, 0, 3)
    angles = torch.randn(1, 1, *heads.shape[2:], device=make.device)
    return {"x": heads, "cosine": angles.cos(), "sine": angles.sin()}


def _gated(make: Make) -> dict[str, Any]:
    return {"widened": make.random(TOKENS, 2, WIDTH).flatten(1)}


def _bias_gelu(make: Make) -> dict[str, Any]:
    return {"x": make.random(TOKENS, 4 * HIDDEN), "bias": make.random(4 * HIDDEN)}


def _bias_dropout_add(make: Make) -> dict[str, Any]:
    tensors = {"x": make.random(TOKENS, HIDDEN), "bias": make.random(HIDDEN), "residual": make.random(TOKENS, HIDDEN)}
    return {**tensors, "rows": numbered_words(0, len(tensors["x"]), make.device), "probability": 0.1}


# Of causal scores and of their gradients one half must be read, and all of the result be written.
WORK: tuple[Work, ...] = (
    Work("rms_norm", _rms_norm, forward=2, backward=3),
    Work("layer_norm", _layer_norm, forward=2, backward=3),
    Work("causal_softmax", _causal_softmax, forward=1.5, backward=2),
    Work("masked_softmax", _masked_softmax, forward=2, backward=3),
    Work("softmax_statistics", _statistics, forward=1),
    Work("softmax_gradient_", _gradient, forward=2),
    Work("rotary", _rotary, forward=2, backward=2),
    Work("swiglu", _gated, forward=1.5, backward=2.5),
    Work("geglu", _gated, forward=1.5, backward=2.5),
    Work("bias_gelu_tanh", _bias_gelu, forward=2, backward=3),
    Work("bias_dropout_add", _bias_dropout_add, forward=3, backward=2),
)
