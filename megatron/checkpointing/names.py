"""The names of a checkpoint's tensors, and of their types: `"{parameter}/{kind}"`, the kind being "weight" or one of the optimizer's state ("exp_avg", ...).

`"2.attention.dense.weight/exp_avg"` is the `exp_avg` of the parameter `dense.weight` in module `attention` of layer 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WEIGHT = "weight"


def is_weight(name: str) -> bool:
    """Whether a tensor's name is that of a weight, not of optimizer state."""
    return kind_of(name) == WEIGHT


def parameter_of(name: str) -> str:
    """The parameter that a tensor belongs to."""
    return name.rpartition("/")[0]


def kind_of(name: str) -> str:
    """What a tensor is of its parameter: "weight", "exp_avg", ..."""
    return name.rpartition("/")[2]


def dtype_name(dtype: torch.dtype) -> str:
    """What a checkpoint calls the type of a tensor's elements: "float32", ..."""
    return str(dtype).removeprefix("torch.")
