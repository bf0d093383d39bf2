"""The norms equal their formulas and have the parameters that checkpoints have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from megatron.components import NORMS
from megatron.model.spec import BuildContext
from tests.unit.model.builders import FP64, perturb

HIDDEN, EPSILON = 12, 0.03
X = torch.randn(5, 2, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def build(name: str, *, use_bias: bool = True, context: BuildContext = FP64) -> nn.Module:
    norm: nn.Module = NORMS.load(name)(HIDDEN, epsilon=EPSILON, use_bias=use_bias, context=context)
    perturb(norm)
    return norm


def standardised() -> Tensor:
    centred = X - X.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + EPSILON).sqrt()


def test_layernorm_equals_its_formula() -> None:
    norm = build("layernorm")
    torch.testing.assert_close(norm(X), standardised() * norm.weight + norm.bias)


def test_layernorm_without_bias_has_none() -> None:
    norm = build("layernorm", use_bias=False)
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    torch.testing.assert_close(norm(X), standardised() * norm.weight)


def test_non_parametric_layernorm_only_standardises() -> None:
    norm = build("non_parametric_layernorm")
    assert not list(norm.parameters())
    torch.testing.assert_close(norm(X), standardised())


def test_rmsnorm_equals_its_formula_and_calls_its_gain_scale() -> None:
    norm = build("rmsnorm")
    assert [name for name, _ in norm.named_parameters()] == ["scale"]
    torch.testing.assert_close(norm(X), X / (X.pow(2).mean(-1, keepdim=True) + EPSILON).sqrt() * norm.scale)


def test_scalenorm_equals_its_formula_and_has_one_number() -> None:
    norm = build("scalenorm")
    assert [(name, parameter.shape) for name, parameter in norm.named_parameters()] == [("g", (1,))]
    torch.testing.assert_close(norm(X), norm.g * X / X.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("name", [name for name in NORMS.names if NORMS.requirement(name) is None])
def test_half_precision_comes_back_as_it_went_in(name: str) -> None:
    norm = build(name, context=BuildContext(dtype=torch.bfloat16))
    result = norm(X.bfloat16())
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), build(name)(X), atol=0.03, rtol=0.03)
