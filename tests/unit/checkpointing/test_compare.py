"""Comparing checkpoints tensor by tensor, whatever layout wrote them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron.checkpointing.compare import compare, compare_runs, deviations
from megatron.checkpointing.layout import checkpoint_name
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.errors import CheckpointError
from tests.conftest import REPOSITORY
from tests.unit.checkpointing.fakes import SHAPES, fake_engine, full_values

ALTERED = "2.mlp.linear1.weight/exp_avg"


@pytest.fixture
def values() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def save(directory: Path, values: dict[str, Tensor], *, seed: int, iteration: int = 3) -> Path:
    """A checkpoint whose tensors are cut at random by the seed."""
    save_checkpoint(directory, fake_engine(seed=seed).fill(values), iteration=iteration, run_state={})
    return directory / checkpoint_name(iteration)


def altered(values: dict[str, Tensor], by: float) -> dict[str, Tensor]:
    """The values with one element of one tensor changed by this share of the tensor's largest."""
    changed = {name: tensor.clone() for name, tensor in values.items()}
    changed[ALTERED].view(-1)[5] += by * values[ALTERED].abs().max()
    return changed


def test_equal_checkpoints_of_other_layouts_do_not_deviate(tmp_path: Path, values: dict[str, Tensor]) -> None:
    found = compare(save(tmp_path / "a", values, seed=1), save(tmp_path / "b", values, seed=2))
    assert found == dict.fromkeys(sorted(SHAPES), 0.0)


def test_one_altered_element_is_found_in_its_tensor_alone(tmp_path: Path, values: dict[str, Tensor]) -> None:
    found = compare(save(tmp_path / "a", altered(values, 0.25), seed=1), save(tmp_path / "b", values, seed=2))
    assert found.pop(ALTERED) == pytest.approx(0.25, rel=1e-5)
    assert set(found.values()) == {0.0}


def test_steps_that_both_have_are_compared(tmp_path: Path, values: dict[str, Tensor]) -> None:
    for iteration in (1, 2, 3):
        save(tmp_path / "a", altered(values, 0.1 * iteration), seed=1, iteration=iteration)
    for iteration in (2, 3, 4):
        save(tmp_path / "b", values, seed=2, iteration=iteration)
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert {step: round(tensors[ALTERED], 4) for step, tensors in found.items()} == {2: 0.2, 3: 0.3}


def test_what_is_not_finite_or_not_there_deviates_infinitely(values: dict[str, Tensor]) -> None:
    (first, second, third, *_) = values
    broken = {**values, first: torch.full_like(values[first], math.nan), third: torch.zeros(99)}
    del broken[second]
    found = deviations(broken, values)
    assert [found[name] for name in (first, second, third)] == [math.inf] * 3
    assert deviations(values, broken)[second] == math.inf


def test_rounding_noise_of_a_tensor_of_noise_is_no_deviation() -> None:
    expected = {"a/exp_avg": torch.tensor([1.0]), "b/exp_avg": torch.tensor([1e-9]), "b/weight": torch.tensor([1e-9])}
    found = deviations({name: tensor * 2 for name, tensor in expected.items()}, expected)
    assert found == {"a/exp_avg": 1.0, "b/exp_avg": pytest.approx(1e-8), "b/weight": 1.0}


def test_damage_is_told(tmp_path: Path, values: dict[str, Tensor]) -> None:
    whole = save(tmp_path / "a", values, seed=1)
    damaged = save(tmp_path / "b", values, seed=1)
    file = next(damaged.glob("*.distcp"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(file)):
        compare(whole, damaged)


def test_it_is_a_program(tmp_path: Path, values: dict[str, Tensor]) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        save(tmp_path / name, values if name == "a" else full_values(1), seed=seed)
    words = [tmp_path / "a", tmp_path / "b", tmp_path / "out.json"]
    command = [sys.executable, "-m", "megatron.checkpointing.compare", *map(str, words)]
    subprocess.run(command, check=True, cwd=REPOSITORY, timeout=200)
    found = json.loads((tmp_path / "out.json").read_text())
    assert sorted(found["3"]) == sorted(SHAPES)
    assert all(value > 0 for value in found["3"].values())
