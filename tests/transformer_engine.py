"""A stand-in for NVIDIA's Transformer Engine, which needs a GPU: what is used of release 2.20, with its arguments and what it insists on.

It computes in the type of the parameters, so that a model with it has the numbers of the same model without it; and notes each call.
"""

from __future__ import annotations

import enum
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from megatron.mpu import transformer_engine


class Format(enum.Enum):
    """Of the package, with the numbers of bits instead of its ranges."""

    E4M3 = "4, 3"
    E5M2 = "5, 2"
    HYBRID = "4, 3 and 5, 2"


@dataclass
class Float8CurrentScaling:
    """A recipe."""

    fp8_format: Format = Format.HYBRID


@dataclass
class Notes:
    """linear: (in features, out features, whether in fp8, format) of each product; norms: the kinds of norms; recipe: of the region now."""

    linear: list[tuple[int, int, bool, Format | None]] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    recipe: Float8CurrentScaling | None = None


class Linear(nn.Module):
    """transformer_engine.pytorch.Linear."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        sequence_parallel: bool = False,
        tp_group: object = None,
        tp_size: int = 1,
        bias: bool = True,
        params_dtype: torch.dtype | None = None,
        parallel_mode: str | None = None,
        device: torch.device | str = "cuda",
        notes: Notes | None = None,
    ) -> None:
        super().__init__()
        self.notes = notes or Notes()
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=params_dtype, device=device))
        assert not bias

    def forward(self, inp: Tensor, is_first_microbatch: bool | None = None) -> Tensor:
        recipe = self.notes.recipe
        for name, parameter in self.named_parameters():
            assert parameter.dtype == inp.dtype, f"types of the input and {name} must match"
        assert not self.weight.is_meta
        if recipe is not None:
            for operand in (inp, self.weight):
                assert operand.shape[:-1].numel() % 8 == 0
                assert operand.shape[-1] % 16 == 0
        format_ = None if recipe is None else recipe.fp8_format
        self.notes.linear.append((*reversed(self.weight.shape), recipe is not None, format_))
        y: Tensor = _Product.apply(inp, self.weight)
        return y


class _Product(torch.autograd.Function):
    """Like the original it gives a view, which must not be overwritten."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.linear(x.flatten(0, -2), weight).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.flatten(0, -2).T @ x.flatten(0, -2)


class _Norm(nn.Module):
    """What both norms share; they take their parameters anew for each call."""

    def __init__(
        self,
        normalized_shape: int,
        eps: float = 1e-5,
        zero_centered_gamma: bool = False,
        device: torch.device | str = "cuda",
        dtype: torch.dtype | None = None,
        notes: Notes | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.notes = eps, notes or Notes()
        for name in self.names:
            self.register_parameter(name, nn.Parameter(torch.empty(normalized_shape, device=device, dtype=dtype)))

    names: tuple[str, ...] = ("weight", "bias")

    def forward(self, x: Tensor) -> Tensor:
        weights = list(self.parameters())
        assert not any(weight.is_meta for weight in weights)
        self.notes.norms.append(type(self).__name__)
        return self.normalise(x, *weights)


class LayerNorm(_Norm):
    """transformer_engine.pytorch.LayerNorm."""

    def normalise(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(x, weight.shape, weight, bias, self.eps)


class RMSNorm(_Norm):
    """transformer_engine.pytorch.RMSNorm."""

    names = ("weight",)

    def normalise(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, weight.shape, weight, self.eps)


def install(patch: pytest.MonkeyPatch) -> Notes:
    """Let the stand-in be what `import transformer_engine` finds."""
    notes = Notes()

    @contextmanager
    def autocast(
        enabled: bool = True,
        calibrating: bool = False,
        recipe: Float8CurrentScaling | None = None,
        amax_reduction_group: object = None,
    ) -> Iterator[None]:
        before, notes.recipe = notes.recipe, recipe if enabled else None
        try:
            yield
        finally:
            notes.recipe = before

    def noting(kind: type[nn.Module]) -> object:
        return lambda *sizes, **options: kind(*sizes, **options, notes=notes)

    package, torch_part, common, recipes = (
        types.ModuleType(f"transformer_engine{name}") for name in ("", ".pytorch", ".common", ".common.recipe")
    )
    torch_part.__dict__.update(
        autocast=autocast, **{kind.__name__: noting(kind) for kind in (Linear, LayerNorm, RMSNorm)}
    )
    recipes.__dict__.update(Float8CurrentScaling=Float8CurrentScaling, Format=Format)
    for module in (package, torch_part, common, recipes):
        patch.setitem(sys.modules, module.__name__, module)
    transformer_engine.library.cache_clear()
    patch.setattr(transformer_engine, "library", transformer_engine.library.__wrapped__)
    return notes
