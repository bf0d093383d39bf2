"""Norms over all heads equal the plain norms of the heads laid side by side."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megatron.components import ALL_HEADS_NORMS, NORMS
from megatron.model.norms.all_heads import AllHeadsNorm
from megatron.model.spec import BuildContext
from megatron.mpu.groups import Group
from megatron.mpu.shard import shard_of
from tests.unit.model.builders import FP64, perturb

ROWS, HEADS, LENGTH, HEAD, EPSILON = 2, 3, 5, 4, 0.03
X = torch.randn(ROWS, HEADS, LENGTH, HEAD, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5


def build(name: str, *, use_bias: bool = True, context: BuildContext = FP64) -> AllHeadsNorm:
    norm: AllHeadsNorm = ALL_HEADS_NORMS.load(name)(HEADS * HEAD, epsilon=EPSILON, use_bias=use_bias, context=context)
    perturb(norm)
    return norm


def side_by_side(heads: Tensor) -> Tensor:
    return heads.permute(0, 2, 1, 3).flatten(2)  # [b, s, n d]


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("name", ALL_HEADS_NORMS.names)
def test_it_is_the_plain_norm_of_all_channels(name: str, use_bias: bool) -> None:
    norm = build(name, use_bias=use_bias)
    plain = NORMS.load(name)(HEADS * HEAD, epsilon=EPSILON, use_bias=use_bias, context=FP64)
    plain.load_state_dict(norm.state_dict())
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    found, expected = side_by_side(norm(x)), plain(side_by_side(y))
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for ours, theirs in zip(norm.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", ALL_HEADS_NORMS.names)
def test_weights_are_divided_over_the_ranks_with_the_heads(name: str) -> None:
    context = BuildContext(tensor_group=Group(1, 3, (0, 1, 2)))
    norm = ALL_HEADS_NORMS.load(name)(HEADS * HEAD, epsilon=EPSILON, use_bias=True, context=context)
    for parameter in norm.parameters():
        assert parameter.shape == (HEAD,)
        assert shard_of(parameter).is_sharded
        assert shard_of(parameter).full_shape == (HEADS * HEAD,)


@pytest.mark.parametrize("name", ALL_HEADS_NORMS.names)
def test_half_precision_is_rounded_once(name: str) -> None:
    norm = build(name, context=BuildContext(dtype=torch.bfloat16))
    result = norm(X.bfloat16())
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, norm(X.bfloat16().float()).bfloat16())
