"""MLPs equal their formulas, with and without biases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from megatron.model.mlp.base import MLP
from megatron.model.mlp.gated import GatedMLP
from megatron.model.mlp.plain import PlainMLP
from tests.unit.model.builders import FP64, NORMAL, perturb

HIDDEN, WIDTH = 8, 20
X = torch.randn(5, 2, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def build(mlp_type: type[MLP], *, use_bias: bool) -> MLP:
    mlp = mlp_type(
        hidden_size=HIDDEN,
        width=WIDTH,
        activation=F.silu,
        use_bias=use_bias,
        init=NORMAL,
        output_init=NORMAL,
        context=FP64,
    )
    perturb(mlp)
    return mlp


@pytest.mark.parametrize("use_bias", [True, False])
def test_plain_mlp_widens_activates_and_narrows(use_bias: bool) -> None:
    mlp = build(PlainMLP, use_bias=use_bias)
    expected = F.linear(F.silu(F.linear(X, mlp.linear1.weight, mlp.linear1.bias)), mlp.linear2.weight, mlp.linear2.bias)
    torch.testing.assert_close(mlp(X), expected)
    assert ("linear1.bias" in dict(mlp.named_parameters())) == use_bias


@pytest.mark.parametrize("use_bias", [True, False])
def test_gated_mlp_multiplies_its_first_half_with_the_activated_second_half(use_bias: bool) -> None:
    mlp = build(GatedMLP, use_bias=use_bias)
    assert mlp.linear1.weight.shape == (2 * WIDTH, HIDDEN)
    widened = F.linear(X, mlp.linear1.weight, mlp.linear1.bias)
    expected = F.linear(widened[..., :WIDTH] * F.silu(widened[..., WIDTH:]), mlp.linear2.weight, mlp.linear2.bias)
    torch.testing.assert_close(mlp(X), expected)
