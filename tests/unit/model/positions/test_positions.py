"""Rotary scores depend on distances only; learned positions are rows of a table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.components import POSITIONS
from megatron.model.positions.base import Positions
from megatron.model.positions.rotary import RotaryPositions, rotary_table
from megatron.neox_arguments.rope_scaling import scale
from tests.unit.model.builders import FP64, NORMAL, perturb

HEAD, LENGTH = 16, 32


def random_heads(heads: int, length: int = 5) -> Tensor:
    return torch.randn(2, heads, length, HEAD, dtype=torch.float64, generator=torch.Generator().manual_seed(heads))


def rotate_by_hand(x: Tensor, position_ids: Tensor, width: int, base: float) -> Tensor:
    """Each pair (i, i + width / 2) of the first `width` features as a complex number, turned by position / base^(2 i / width)."""
    frequencies = base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = position_ids[:, None, :, None] * frequencies
    turned = torch.complex(x[..., : width // 2], x[..., width // 2 : width]) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.cat((turned.real, turned.imag, x[..., width:]), dim=-1)


@pytest.mark.parametrize(("fraction", "width"), [(1.0, 16), (0.25, 4)])
def test_rotary_turns_the_first_part_of_each_head_by_the_position(fraction: float, width: int) -> None:
    positions = RotaryPositions(LENGTH, HEAD, rotary_fraction=fraction, rotary_base=100)
    position_ids = torch.tensor([[0, 1, 2, 3, 4], [7, 8, 31, 0, 2]])
    query, key = random_heads(4), random_heads(2)
    rotated_query, rotated_key = positions.rotate(query, key, position_ids)
    torch.testing.assert_close(rotated_query, rotate_by_hand(query, position_ids, width, 100), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotated_key, rotate_by_hand(key, position_ids, width, 100), atol=1e-5, rtol=0)


def test_rotary_scores_depend_on_distances_only() -> None:
    positions = RotaryPositions(LENGTH, HEAD)
    query, key = random_heads(2), random_heads(2)
    near = torch.arange(5).expand(2, 5)

    def scores(position_ids: Tensor) -> Tensor:
        rotated_query, rotated_key = positions.rotate(query, key, position_ids)
        return rotated_query @ rotated_key.mT

    torch.testing.assert_close(scores(near), scores(near + 20), atol=1e-5, rtol=0)
    assert (scores(near) - scores(2 * near)).abs().max() > 0.1


def test_rotary_angles_stay_fp32_for_half_precision_queries() -> None:
    positions = RotaryPositions(2048, HEAD)
    query = random_heads(1, length=1)
    far = torch.tensor([[2047], [1023]])
    rotated, _ = positions.rotate(query.bfloat16(), query.bfloat16(), far)
    expected, _ = positions.rotate(query.bfloat16().double(), query, far)
    torch.testing.assert_close(rotated, expected.bfloat16())


SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear", "factor": 4},
    "llama3": {"type": "llama3", "factor": 4, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 32},
    "yarn": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 32, "beta_fast": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", SCALINGS)
def test_scaled_positions_turn_each_pair_by_its_scaled_frequency(name: str) -> None:
    width, base = 8, 100
    positions = RotaryPositions(
        LENGTH, HEAD, rotary_fraction=0.5, rotary_base=base, rotary_scaling=tuple(SCALINGS[name].items())
    )
    position_ids = torch.tensor([[0, 1, 2, 3, 4], [7, 8, 31, 0, 2]])
    query, key = random_heads(4), random_heads(2)
    rotation = scale([base ** (-2 * i / width) for i in range(width // 2)], base, SCALINGS[name])
    angles = position_ids[:, None, :, None] * torch.tensor(rotation.frequencies, dtype=torch.float64)
    turn = torch.polar(torch.full_like(angles, rotation.magnitude), angles)
    for rotated, x in zip(positions.rotate(query, key, position_ids), (query, key), strict=True):
        turned = torch.complex(x[..., : width // 2], x[..., width // 2 : width]) * turn
        expected = torch.cat((turned.real, turned.imag, x[..., width:]), dim=-1)
        torch.testing.assert_close(rotated, expected, atol=1e-5, rtol=0)
        unscaled = rotate_by_hand(x, position_ids, width, base)
        assert (rotated - unscaled).abs().max() > 0.1


def test_linear_scaling_by_two_puts_positions_at_half_the_distance() -> None:
    query = random_heads(2)
    scaled = RotaryPositions(LENGTH, HEAD, rotary_scaling=(("type", "linear"), ("factor", 2)))
    plain = RotaryPositions(LENGTH, HEAD)
    even = torch.arange(0, 10, 2).expand(2, 5)
    torch.testing.assert_close(scaled.rotate(query, query, even)[0], plain.rotate(query, query, even // 2)[0])


def test_a_table_made_in_inference_mode_serves_training_later() -> None:
    rotary_table.cache_clear()
    positions = RotaryPositions(LENGTH, HEAD)
    position_ids = torch.arange(5).expand(2, 5)
    with torch.inference_mode():
        positions.rotate(random_heads(2), random_heads(2), position_ids)
    query = random_heads(2).requires_grad_()
    positions.rotate(query, query, position_ids)[0].square().sum().backward()
    assert query.grad is not None


@pytest.mark.parametrize("offset", [0, 2])
def test_learned_positions_are_rows_of_a_table(offset: int) -> None:
    positions: Positions = POSITIONS.load("learned")(LENGTH, HEAD, offset=offset)
    embedding = positions.build_embedding(6, init=NORMAL, context=FP64)
    assert embedding is not None
    perturb(embedding)
    assert embedding.weight.shape == (LENGTH + offset, 6)
    position_ids = torch.tensor([[0, 1, 2], [5, 0, 31]])
    result = embedding(position_ids)  # [s, b, h]
    for row, column in ((0, 0), (0, 2), (1, 0), (1, 2)):
        assert torch.equal(result[column, row], embedding.weight[position_ids[row, column] + offset])


@pytest.mark.parametrize("name", ["none", "learned"])
def test_only_rotary_touches_queries_and_keys(name: str) -> None:
    positions: Positions = POSITIONS.load(name)(LENGTH, HEAD)
    query = random_heads(2)
    assert all(x is query for x in positions.rotate(query, query, torch.arange(5).expand(2, 5)))


@pytest.mark.parametrize("name", ["none", "rotary"])
def test_only_learned_positions_add_to_the_embedding(name: str) -> None:
    assert POSITIONS.load(name)(LENGTH, HEAD).build_embedding(6, init=NORMAL, context=FP64) is None
