"""Parameters as data: the shapes of a model's tensors, its layers as lists of them, and the parts that several kinds of layer share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TensorShape:
    """One parameter, whole: `sharded_dim` is the dimension cut over the tensor-parallel ranks, None = each rank has all of it.

    is_trained: whether it has a gradient; is_fp32: whether it stays fp32 in a half-precision model.
    """

    name: str
    shape: tuple[int, ...]
    sharded_dim: int | None = None
    is_trained: bool = True
    is_fp32: bool = False

    @property
    def elements(self) -> int:
        """Elements of the whole parameter."""
        return math.prod(self.shape)

    def local_elements(self, ranks: int) -> int:
        """Elements that one of `ranks` tensor-parallel ranks holds."""
        return self.elements if self.sharded_dim is None else self.elements // ranks

    @property
    def is_decayed(self) -> bool:
        """Whether weight decay applies (see `megatron.optim.param_groups`): it does to matrices, not to vectors."""
        return len(self.shape) >= 2


@dataclass(frozen=True)
class LayerShape:
    """One layer: its number and kind as in `LayerSpec`, its parameters in the order of the module, and the layer it shares them with.

    tied_to: number of the layer that owns the parameters of this one, None when that is this layer itself.
    """

    number: int
    name: str
    tensors: tuple[TensorShape, ...]
    tied_to: int | None = None


def prefixed(prefix: str, tensors: Iterable[TensorShape]) -> tuple[TensorShape, ...]:
    """The tensors of a submodule under the names they have in the module around it."""
    return tuple(replace(tensor, name=f"{prefix}.{tensor.name}") for tensor in tensors)


def column_linear(inputs: int, outputs: int, *, bias: bool) -> tuple[TensorShape, ...]:
    """A projection cut by its outputs (`ColumnParallelLinear`)."""
    weight = TensorShape("weight", (outputs, inputs), 0)
    return (weight, TensorShape("bias", (outputs,), 0)) if bias else (weight,)


def row_linear(inputs: int, outputs: int, *, bias: bool) -> tuple[TensorShape, ...]:
    """A projection cut by its inputs (`RowParallelLinear`); its bias is whole on every rank."""
    weight = TensorShape("weight", (outputs, inputs), 1)
    return (weight, TensorShape("bias", (outputs,))) if bias else (weight,)


def whole_linear(inputs: int, outputs: int, *, bias: bool) -> tuple[TensorShape, ...]:
    """A projection that every rank has whole."""
    weight = TensorShape("weight", (outputs, inputs))
    return (weight, TensorShape("bias", (outputs,))) if bias else (weight,)


def norm_tensors(kind: str, width: int, *, bias: bool, sharded: bool = False) -> tuple[TensorShape, ...]:
    """The parameters of a norm over `width` channels, by its name in configs; sharded: each rank has its part of the channels."""
    dim = 0 if sharded else None
    if kind == "non_parametric_layernorm":
        return ()
    if kind == "scalenorm":
        return (TensorShape("g", (1,)),)
    if kind in ("rmsnorm", "te_rmsnorm"):
        return (TensorShape("scale", (width,), dim),)
    weight = TensorShape("weight", (width,), dim)
    return (weight, TensorShape("bias", (width,), dim)) if bias else (weight,)
