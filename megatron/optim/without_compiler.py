"""Keeps torch's optimizers from loading torch's compiler, which would cost every start more than half a second.

Their methods import `torch._dynamo` when they are first called, only to ask it not to compile them. Nothing here compiles an
optimizer: the methods they wrap are called instead.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch.optim import Optimizer

_BOOKKEEPING = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def keep_compiler_out(kind: type[Optimizer]) -> None:
    """Let optimizers of class `kind` do the same as before, but for the import. Call it once for each class."""
    for name in _BOOKKEEPING:
        setattr(Optimizer, name, inspect.unwrap(getattr(Optimizer, name)))
    kind.step = _with_gradients_if_differentiable(inspect.unwrap(kind.step))  # type: ignore[method-assign]


def _with_gradients_if_differentiable(step: Any) -> Any:
    @functools.wraps(step)
    def stepping(optimizer: Optimizer, *arguments: Any, **options: Any) -> Any:
        with torch.set_grad_enabled(optimizer.defaults["differentiable"]):
            return step(optimizer, *arguments, **options)

    return stepping
