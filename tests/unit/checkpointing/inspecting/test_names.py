"""Names of tensors: their order, and how to ask for them."""

from __future__ import annotations

import pytest

from megatron.checkpointing.inspecting.names import in_order, select
from megatron.errors import CheckpointError

NAMES = ["10.norm.scale/weight", "2.mlp.bias/exp_avg", "2.mlp.bias/weight", "2.mlp.dense.weight/weight"]


def test_layers_are_in_the_order_of_their_numbers() -> None:
    assert in_order(NAMES) == [*NAMES[1:], NAMES[0]]
    assert in_order(["b.1", "b.10", "b.9", "a"]) == ["a", "b.1", "b.9", "b.10"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["2.mlp.bias/weight"], [2]),
        (["2.mlp.bias"], [1, 2]),
        (["2.*"], [1, 2, 3]),
        (["*/exp_avg"], [1]),
        (["*.weight"], [3]),
        (["*.scale", "2.mlp.bias"], [1, 2, 0]),
    ],
)
def test_tensors_are_asked_for_by_name_parameter_or_pattern(words: list[str], found: list[int]) -> None:
    assert select(words, NAMES, where="x") == [NAMES[number] for number in found]


def test_a_word_that_is_nothing_is_told_with_what_is_near() -> None:
    with pytest.raises(CheckpointError, match=r'^x holds no tensor "2.mlp.bais" \(did you mean "2.mlp.bias"\?\)$'):
        select(["2.*", "2.mlp.bais"], NAMES, where="x")
