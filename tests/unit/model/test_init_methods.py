"""Init methods have the spread their formulas say, and depend on the generator alone."""

from __future__ import annotations

import math

import pytest
import torch

from megatron.components import INIT_METHODS
from megatron.model.init_methods import build_init_method

OUTPUTS, INPUTS, LAYERS, HIDDEN, STD = 300, 200, 8, 64, 0.02

SPREADS = {
    "normal": STD,
    "scaled_normal": STD / math.sqrt(2 * LAYERS),
    "single_residual_scaled_normal": STD / math.sqrt(LAYERS),
    "small_init": math.sqrt(2 / (5 * HIDDEN)),
    "wang_init": 2 / (LAYERS * math.sqrt(HIDDEN)),
    "xavier_uniform": math.sqrt(2 / (INPUTS + OUTPUTS)),
    "xavier_normal": math.sqrt(2 / (INPUTS + OUTPUTS)),
    "orthogonal": math.sqrt(2 / OUTPUTS),
    "scaled_orthogonal": math.sqrt(2 / LAYERS / OUTPUTS),
}


def draw(name: str, seed: int = 0) -> torch.Tensor:
    matrix = torch.full((OUTPUTS, INPUTS), float("nan"))
    build_init_method(name, std=STD, num_layers=LAYERS, hidden_size=HIDDEN)(matrix, torch.Generator().manual_seed(seed))
    return matrix


def test_every_init_method_is_covered() -> None:
    assert set(SPREADS) == set(INIT_METHODS)


@pytest.mark.parametrize("name", SPREADS)
def test_the_standard_deviation_is_that_of_the_formula(name: str) -> None:
    matrix = draw(name)
    assert matrix.std().item() == pytest.approx(SPREADS[name], rel=0.01)
    assert abs(matrix.mean().item()) < 0.02 * SPREADS[name]


@pytest.mark.parametrize("name", SPREADS)
def test_values_depend_on_the_generator_alone(name: str) -> None:
    torch.manual_seed(1)
    first = draw(name)
    torch.manual_seed(2)
    assert torch.equal(first, draw(name))
    assert not torch.equal(first, draw(name, seed=1))


def test_orthogonal_matrices_have_orthogonal_columns() -> None:
    matrix = draw("scaled_orthogonal").double()
    torch.testing.assert_close(
        matrix.T @ matrix, torch.eye(INPUTS, dtype=torch.float64) * 2 / LAYERS, atol=1e-5, rtol=0
    )


def test_xavier_uniform_stays_within_its_bound() -> None:
    assert draw("xavier_uniform").abs().max() <= math.sqrt(6 / (INPUTS + OUTPUTS))
