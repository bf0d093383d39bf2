"""Which implementation of an operation runs: its Triton kernels where there are a GPU and Triton, plain torch everywhere else.

Both have the same name, signature and numbers (up to rounding), so that a caller only asks once, when a model is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from megatron.fused_kernels import reference
from megatron.log import get_logger

logger = get_logger(__name__)

MODULES = {
    "bias_dropout_add": "bias_dropout_add",
    "bias_gelu_tanh": "bias_gelu",
    "causal_softmax": "softmax",
    "geglu": "gated",
    "layer_norm": "layer_norm",
    "masked_softmax": "softmax",
    "rms_norm": "rms_norm",
    "rotary": "rotary",
    "softmax_gradient_": "cross_entropy",
    "softmax_statistics": "cross_entropy",
    "swiglu": "gated",
}
"""The file of this folder in which the fused form of an operation lies, under the name that it has in `reference.py`."""


def choose(name: str, *, wanted: bool, device: torch.device | str) -> Callable[..., Any]:
    """The operation `name` of reference.py, fused if that is wanted and possible on `device`.

    Where it is wanted and not possible, this is said once. Nothing of Triton is imported unless it is used.
    """
    if not wanted:
        return plain(name)
    obstacle = _obstacle(torch.device(device).type)
    if obstacle is not None:
        _say_once(obstacle)
        return plain(name)
    return fused(name)


def plain(name: str) -> Callable[..., Any]:
    """The operation in plain torch."""
    operation: Callable[..., Any] = getattr(reference, name)
    return operation


def fused(name: str) -> Callable[..., Any]:
    """The operation with Triton kernels, which need a GPU (or Triton's interpreter) once they run."""
    operation: Callable[..., Any] = getattr(importlib.import_module(f"megatron.fused_kernels.{MODULES[name]}"), name)
    return operation


def _obstacle(device: str) -> str | None:
    if device != "cuda":  # that is what torch calls AMD's GPUs as well
        return f"the model is on the {device.upper()}, and they need a GPU"
    if find_spec("triton") is None:
        return 'the package "triton" is not installed'
    return None


@cache
def _say_once(obstacle: str) -> None:
    logger.info("fused kernels run as plain torch operations here, with the same numbers: %s", obstacle)
