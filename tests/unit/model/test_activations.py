"""Activations equal their formulas."""

from __future__ import annotations

import pytest
import torch

from megatron.components import ACTIVATIONS
from megatron.fused_kernels import reference
from megatron.model.activations import build_activation

X = torch.linspace(-5, 5, 101, dtype=torch.float64)

EXPECTED = {
    "gelu": reference.gelu_erf(X),
    "relu": X.clamp(min=0),
    "softsign": X / (1 + X.abs()),
    "swish": X / (1 + torch.exp(-X)),
    "silu": X / (1 + torch.exp(-X)),
    "mish": X * torch.tanh(torch.log1p(torch.exp(X))),
    "geglu": reference.gelu_erf(X),
    "reglu": X.clamp(min=0),
    "swiglu": X / (1 + torch.exp(-X)),
    "bilinear": X,
    "glu": 1 / (1 + torch.exp(-X)),
}


def test_every_activation_is_covered() -> None:
    assert set(EXPECTED) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", EXPECTED)
def test_activation_equals_its_formula(name: str) -> None:
    torch.testing.assert_close(build_activation(name, tanh_gelu=False)(X), EXPECTED[name])


def test_only_the_plain_gelu_is_approximated() -> None:
    torch.testing.assert_close(build_activation("gelu", tanh_gelu=True)(X), reference.gelu_tanh(X))
    for name in set(EXPECTED) - {"gelu"}:
        torch.testing.assert_close(build_activation(name, tanh_gelu=True)(X), EXPECTED[name])
