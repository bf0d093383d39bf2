"""Where two checkpoints differ, and where they do not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron.checkpointing.compare import compare
from megatron.checkpointing.inspecting.blocks import BLOCK_ELEMENTS
from megatron.checkpointing.inspecting.contents import read_contents
from megatron.checkpointing.inspecting.difference_page import comparison_lines
from megatron.checkpointing.inspecting.differences import (
    Comparison,
    Element,
    TensorDifference,
    compare_contents,
    compare_tensors,
)
from tests.unit.checkpointing.inspecting.saved import RUN_STATE, random_values, save_run
from tests.unit.neox_arguments.minimal import build

ALTERED = "2.mlp.linear1.weight/exp_avg"


def compared(first: Path, second: Path) -> Comparison:
    return compare_contents(read_contents(first), read_contents(second))


def text(found: Comparison, tolerance: float | None = None) -> list[str]:
    lines = comparison_lines(found, Path("a"), Path("b"), tolerance=tolerance)
    return ["".join(piece for piece, _ in line).rstrip() for line in lines]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("reference"), seed=1)


def altered(by: float) -> dict[str, Tensor]:
    values = random_values()
    values[ALTERED][1, 2, 3] += by
    values[ALTERED][2, 7, 4] -= by / 2
    return values


def test_the_same_values_in_another_layout_are_equal_to_the_bit(reference: Path, tmp_path: Path) -> None:
    values = random_values()
    found = compared(reference, save_run(tmp_path, values, seed=2))
    assert found.is_equal(None)
    assert text(found)[-1] == f"equal to the bit: {len(values)} tensors, and the counters"


def test_altered_elements_are_found_with_their_place_and_values(reference: Path, tmp_path: Path) -> None:
    found = compared(reference, other := save_run(tmp_path, altered(0.25), seed=2))
    (tensor,) = (one for one in found.tensors if not one.is_equal)
    first = float(random_values()[ALTERED][1, 2, 3])
    assert (tensor.name, tensor.count, tensor.largest) == (ALTERED, 2, pytest.approx(0.25))
    assert tensor.element == Element((1, 2, 3), first, pytest.approx(first + 0.25))
    assert tensor.relative == pytest.approx(compare(reference, other)[ALTERED], rel=1e-6)
    assert (found.is_equal(None), found.is_equal(0.5), found.is_equal(0.01)) == (False, True, False)
    lines = text(found, tolerance=0.5)
    assert lines[3].startswith(f"  {ALTERED}[1, 2, 3]: {first!r} in the first, ")
    assert lines[-1].startswith("equal within 0.5: the largest relative deviation is 0.")


def test_tensors_of_one_alone_and_other_shapes_are_told(reference: Path, tmp_path: Path) -> None:
    values = {"new/weight": torch.ones(2), **random_values()}
    del values["10.norm.scale/weight"]
    values["2.attention.dense.bias/weight"] = torch.ones(8)
    found = {one.name: one for one in compared(reference, save_run(tmp_path, values)).tensors if not one.is_equal}
    assert {name: one.problem for name, one in found.items()} == {
        "10.norm.scale/weight": "only in the first",
        "2.attention.dense.bias/weight": "shape [7] in the first, [8] in the second",
        "new/weight": "only in the second",
    }
    assert all(one.relative == math.inf for one in found.values())


def test_counters_count_and_settings_do_not(reference: Path, tmp_path: Path) -> None:
    close = {**RUN_STATE, "recent_losses": [2.5, 2.2500001]}
    found = compared(reference, save_run(tmp_path / "a", run_state=close, args=build(seed=8, rotary_pct=0.5)))
    assert found.counters == {"recent_losses": ([2.5, 2.25], [2.5, 2.2500001])}
    assert found.settings["seed"] == (7, 8)
    assert found.settings["rotary_pct"] == (1.0, 0.5)  # a default is not saved
    assert (found.is_equal(None), found.is_equal(1e-5), found.is_equal(1e-9)) == (False, True, False)
    assert ["seed", "7", "8"] in [line.split() for line in text(found)]
    further = compared(reference, save_run(tmp_path / "b", run_state={**RUN_STATE, "consumed_samples": 25}))
    assert not further.is_equal(1.0)
    only_settings = compared(reference, save_run(tmp_path / "c", args=build(seed=8)))
    assert only_settings.settings == {"seed": (7, 8)}
    assert only_settings.is_equal(None)


def test_bits_decide_nan_and_signed_zeros_too() -> None:
    same = torch.tensor([math.nan, 1.0, -math.inf])
    assert compare_tensors("a", same, same.clone()).is_equal
    zeros = compare_tensors("a", torch.tensor([0.0]), torch.tensor([-0.0]))
    assert (zeros.count, zeros.largest) == (1, 0.0)
    broken = compare_tensors("a", torch.tensor([1.0, math.nan]), torch.tensor([1.0, 2.0]))
    assert (broken.count, broken.largest, broken.element and broken.element.position) == (1, math.inf, (1,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_is_compared(dtype: torch.dtype) -> None:
    first = torch.ones(3, 4, dtype=dtype)
    second = first.clone()
    second[2, 1] = 3
    assert compare_tensors("a", first, second) == TensorDifference(
        "a", count=1, element=Element((2, 1), 1.0, 3.0), largest=2.0, scale=3.0
    )


def test_another_dtype_is_a_difference_of_its_own() -> None:
    found = compare_tensors("a", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5], dtype=torch.bfloat16))
    assert found.problem == "float32 in the first, bfloat16 in the second"
    assert (found.count, found.largest) == (1, 0.5)
    assert not compare_tensors("a", torch.ones(1), torch.ones(1).double()).is_equal


def test_the_first_difference_may_lie_in_a_later_block() -> None:
    first = torch.zeros(3, BLOCK_ELEMENTS)
    second = first.clone()
    second[2, 5] = second[1, 7] = 1.0
    found = compare_tensors("a", first, second)
    assert (found.count, found.element and found.element.position) == (2, (1, 7))


def test_scalars_and_empty_tensors_are_compared() -> None:
    assert compare_tensors("a", torch.tensor(1.0), torch.tensor(2.0)).element == Element((), 1.0, 2.0)
    assert compare_tensors("a", torch.zeros(0, 3), torch.zeros(0, 3)).is_equal
