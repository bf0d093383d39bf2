"""Weights in oneDNN's order give the products that plain ones give."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from megatron.mpu.groups import SINGLE
from megatron.mpu.linear import ColumnParallelLinear, RowParallelLinear
from megatron.mpu.packed import can_pack, packed_product

pytestmark = pytest.mark.skipif(not can_pack(torch.ones(1)), reason="torch has no oneDNN here")


@pytest.mark.parametrize("rows", [1, 8, 33])
@pytest.mark.parametrize("with_bias", [False, True])
def test_products_are_those_of_the_plain_weight(rows: int, with_bias: bool) -> None:
    weight, x = torch.randn(37, 24), torch.randn(2, rows, 24)
    bias = torch.randn(37) if with_bias else None
    product = packed_product(weight)
    torch.testing.assert_close(product(x, bias), functional.linear(x, weight, bias))
    by_column = x.transpose(0, 1)
    torch.testing.assert_close(product(by_column, bias), functional.linear(by_column, weight, bias))


@pytest.mark.skipif(not can_pack(torch.ones(1, dtype=torch.bfloat16)), reason="no bf16 in oneDNN on this processor")
def test_half_precision_is_summed_in_fp32() -> None:
    weight, x = torch.randn(16, 512, dtype=torch.bfloat16), torch.randn(3, 512, dtype=torch.bfloat16)
    exact = functional.linear(x.double(), weight.double())
    torch.testing.assert_close(packed_product(weight)(x, None).double(), exact, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("kind", [ColumnParallelLinear, RowParallelLinear])
def test_a_packed_layer_gives_up_its_plain_weight(kind: type[ColumnParallelLinear] | type[RowParallelLinear]) -> None:
    layer = kind(24, 40, group=SINGLE, init=normal)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
        x = torch.randn(3, 2, 24)
        expected = layer(x)
        layer.pack()
        assert layer.weight.numel() == 0
        torch.testing.assert_close(layer(x), expected)


def test_layers_that_train_on_split_sequences_and_other_types_stay_as_they_are() -> None:
    layer = ColumnParallelLinear(24, 40, group=SINGLE, init=normal, sequence_parallel=True)
    layer.pack()
    assert layer.weight.shape == (40, 24)
    for weight in (
        torch.ones(2, 2, dtype=torch.float64),
        torch.ones(2, 2, dtype=torch.float16),
        torch.ones(2, 2, device="meta"),
    ):
        assert not can_pack(weight)


def normal(tensor: torch.Tensor, generator: torch.Generator) -> None:
    tensor.normal_(generator=generator)
