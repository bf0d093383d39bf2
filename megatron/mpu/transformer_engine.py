"""NVIDIA's Transformer Engine, the only file that imports it: its fp8 product of a linear layer, and its norms, on parameters of ours.

Its modules are made without memory and given our parameters before each call, so that names, shards, initial values and checkpoints are
what they are without it; ranks exchange what they exchange anyway. They are called as release 2.20 documents them.

Each tensor is scaled to fp8 by its own largest value at that moment (`Float8CurrentScaling`), or by that of the part that a rank holds. With
scales from earlier steps (`DelayedScaling`) a checkpoint would have to carry those: a resumed run would begin with wrong ones.

Shapes: `in`, `out` features of this rank; leading dimensions are free.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor, nn

from megatron.errors import MissingRequirement

_TOKENS = 8  # fp8 products of Transformer Engine take a multiple of so many tokens


class Library(NamedTuple):
    """What is used of the package."""

    linear: Callable[..., nn.Module]
    layer_norm: Callable[..., nn.Module]
    rms_norm: Callable[..., nn.Module]
    autocast: Callable[..., Any]
    current_scaling: Callable[..., Any]
    formats: Any


@cache
def library() -> Library:
    """The package. Raises MissingRequirement when it is not installed, or too old."""
    try:
        from transformer_engine.common.recipe import Float8CurrentScaling, Format
        from transformer_engine.pytorch import LayerNorm, Linear, RMSNorm, autocast
    except ImportError as error:
        raise MissingRequirement(
            f"the te_* keys and norms need Transformer Engine ({error}): "
            "pip install --no-build-isolation -r requirements/requirements-transformer-engine.txt"
        ) from error
    return Library(Linear, LayerNorm, RMSNorm, autocast, Float8CurrentScaling, Format)


class LinearProduct:
    """x [..., in] and a bias [out] or None -> x weight^T + bias [..., out] in fp8, with gradients.

    weight_of: gives the weight [out, in], asked anew each time as an engine may replace it; fp8_format: "hybrid" (gradients in e5m2) or
    "e4m3". A number of tokens that is not a multiple of 8 is computed in the type of the weight.
    """

    def __init__(self, weight_of: Callable[[], nn.Parameter], *, fp8_format: str) -> None:
        self._weight_of, self._fp8_format = weight_of, fp8_format
        self._module: nn.Module | None = None
        self._recipe: Any = None

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        weight = self._weight_of()
        if self._module is None:
            self._module, self._recipe = self._build(weight)
        _give(self._module, "weight", weight)
        in_fp8 = x.shape[:-1].numel() % _TOKENS == 0
        with library().autocast(enabled=in_fp8, recipe=self._recipe):
            y: Tensor = self._module(x)
        return y if bias is None else y + bias

    def _build(self, weight: nn.Parameter) -> tuple[nn.Module, Any]:
        found = library()
        module = found.linear(weight.shape[1], weight.shape[0], bias=False, params_dtype=weight.dtype, device="meta")
        return module, found.current_scaling(fp8_format=getattr(found.formats, self._fp8_format.upper()))


class Norm:
    """x [..., h] and its weights [h] -> the normalised x, by the norm that `make` gives of the package."""

    def __init__(self, make: Callable[[Library], Callable[..., nn.Module]], *, epsilon: float) -> None:
        self._make, self._epsilon = make, epsilon
        self._module: nn.Module | None = None

    def __call__(self, x: Tensor, **weights: Tensor) -> Tensor:
        weight = weights["weight"]
        if self._module is None:
            self._module = self._make(library())(len(weight), eps=self._epsilon, device="meta", dtype=weight.dtype)
        for name, value in weights.items():
            _give(self._module, name, value)
        y: Tensor = self._module(x)
        return y


def _give(module: nn.Module, name: str, value: Tensor) -> None:
    # Past the module's own assignment, which takes leaves alone: a weight whose gradient is summed over ranks is none.
    module._parameters[name] = value  # type: ignore[assignment]
