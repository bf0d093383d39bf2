"""Adam over parameters grouped by whether they are decayed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from megatron.mpu.groups import Group
from megatron.mpu.shard import sharded_parameter
from megatron.neox_arguments import NeoXArgs
from megatron.optim.build import build_optimizer
from megatron.optim.param_groups import build_param_groups
from tests.toy_model import TOY_CONFIG


def no_init(tensor: Tensor, generator: torch.Generator) -> None:
    """An init method that is never called."""


def parameter(*shape: int, **options: object) -> nn.Parameter:
    made = sharded_parameter(shape, init=no_init, **{"group": Group(), **options})
    with torch.no_grad():
        made.copy_(torch.linspace(-1.0, 1.0, made.numel()).view(made.shape))
    return made


def args_of(name: str = "Adam", **params: object) -> NeoXArgs:
    return NeoXArgs.from_dict(
        {
            **TOY_CONFIG,
            "optimizer": {"type": name, "params": {"lr": 0.1, **params}},
            "weight_decay": 0.5,
        }
    )


def test_matrices_are_decayed_and_vectors_are_not() -> None:
    matrix, norm, bias = parameter(3, 4), parameter(4), parameter(3)
    groups = build_param_groups([norm, matrix, bias, matrix], weight_decay=0.5)
    assert [(group["params"], group["weight_decay"]) for group in groups] == [([matrix], 0.5), ([norm, bias], 0.0)]


def test_the_full_shape_decides_not_the_shard() -> None:
    bias = parameter(4, group=Group(0, 2, (0, 1)), dim=0)
    matrix = parameter(4, 2, group=Group(0, 2, (0, 1)), dim=1)
    assert [group["weight_decay"] for group in build_param_groups([bias, matrix], weight_decay=0.5)] == [0.5, 0.0]


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    frozen, bias = parameter(3, 4), parameter(3)
    frozen.requires_grad_(False)
    assert [group["params"] for group in build_param_groups([frozen, bias], weight_decay=0.5)] == [[bias]]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "adam"])
def test_a_step_is_the_formula_with_decoupled_weight_decay(name: str) -> None:
    matrix = parameter(2, 3)
    optimizer = build_optimizer(args_of(name, betas=[0.8, 0.9], eps=1e-3), [matrix])
    expected, first, second = matrix.detach().clone(), torch.zeros(2, 3), torch.zeros(2, 3)
    for step in (1, 2):
        gradient = torch.full((2, 3), 0.3 * step)
        matrix.grad = gradient
        optimizer.step()
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        update = first / (1 - 0.8**step) / ((second / (1 - 0.9**step)).sqrt() + 1e-3)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * update
    torch.testing.assert_close(matrix.detach(), expected)
