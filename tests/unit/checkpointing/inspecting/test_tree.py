"""The tree of parameters, and the lines it becomes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from megatron.checkpointing.inspecting.contents import SavedTensor
from megatron.checkpointing.inspecting.remarks import remarks
from megatron.checkpointing.inspecting.statistics import Statistics, measure
from megatron.checkpointing.inspecting.tree import Node, kinds_of_state, tree
from megatron.checkpointing.inspecting.tree_page import tree_lines
from tests.unit.checkpointing.inspecting.saved import random_values

VALUES = random_values()
TENSORS = {name: SavedTensor(name, tuple(tensor.shape), "float32") for name, tensor in VALUES.items()}
MEASURED = {name: measure(tensor) for name, tensor in VALUES.items()}


def child(node: Node, *labels: str) -> Node:
    """The node below, by labels."""
    for label in labels:
        (node,) = (one for one in node.children if one.label == label)
    return node


def text(root: Node, kinds: list[str]) -> list[str]:
    return ["".join(piece for piece, _ in line).rstrip() for line in tree_lines(root, kinds)]


def test_parameters_are_grouped_by_layer_and_module() -> None:
    root = tree(TENSORS, {})
    assert [node.label for node in root.children] == ["0.word_embeddings.weight", "2", "10.norm.scale"]
    assert [node.label for node in child(root, "2").children] == ["attention", "mlp.linear1.weight"]
    assert [node.label for node in child(root, "2", "attention").children] == ["dense.bias", "dense.weight"]
    assert child(root, "2", "attention").elements == 7 + 49
    assert root.elements == 37 * 6 + 7 + 49 + 120 + 1


def test_norms_of_modules_are_joint_ones() -> None:
    attention = child(tree(TENSORS, MEASURED), "2", "attention")
    for kind in ("weight", "exp_avg"):
        parts = [VALUES[f"2.attention.dense.{part}/{kind}"].flatten() for part in ("bias", "weight")]
        assert attention.norms[kind] == pytest.approx(float(torch.cat(parts).norm()), rel=1e-6)


def test_lines_show_the_tree_with_a_column_for_each_kind_of_state() -> None:
    kinds = kinds_of_state(TENSORS)
    assert kinds == ["exp_avg", "exp_avg_sq"]
    norms = {name: replace(found, norm=3.0) for name, found in MEASURED.items()}
    assert text(tree(TENSORS, norms), kinds) == [
        "parameters                   shape      dtype    elements   norm  of exp_avg  of exp_avg_sq",
        "├─ 0.word_embeddings.weight  37 x 6     float32       222      3           3              3",
        "├─ 2                                                  176  5.196       5.196          5.196",
        "│  ├─ attention                                        56  4.243       4.243          4.243",
        "│  │  ├─ dense.bias          7          float32         7      3           3              3",
        "│  │  └─ dense.weight        7 x 7      float32        49      3           3              3",
        "│  └─ mlp.linear1.weight     3 x 8 x 5  float32       120      3           3              3",
        "└─ 10.norm.scale             scalar     float32         1      3           3              3",
    ]


def test_without_values_there_are_no_norms() -> None:
    lines = text(tree(TENSORS, {}), kinds_of_state(TENSORS))
    assert lines[0].split() == ["parameters", "shape", "dtype", "elements"]
    assert lines[-1].split() == ["└─", "10.norm.scale", "scalar", "float32", "1"]


def test_what_is_remarkable_stands_behind_the_parameter() -> None:
    broken = {**MEASURED, "10.norm.scale/weight": measure(torch.tensor(math.nan))}
    assert text(tree(TENSORS, broken), [])[-1].endswith("1 of 1 NaN or infinite")


def test_state_without_its_weight_is_remarkable() -> None:
    orphan = {name: tensor for name, tensor in TENSORS.items() if name != "10.norm.scale/weight"}
    assert child(tree(orphan, {}), "10.norm.scale").remarks == ("its weight is missing",)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, -2.0], []),
        ([1.0, math.inf, math.nan], ["2 of 3 NaN or infinite"]),
        ([0.0, 0.0], ["all zeros"]),
        ([1.0] * 99 + [0.0], ["1 % zeros"]),
        ([1.0] * 999 + [0.0], []),
        ([1.0] * 999 + [-500.0], ["max |x| 500, 32 times the root mean square"]),
        ([1.0] * 99 + [20.0], []),
    ],
)
def test_remarks_of_a_weight(values: list[float], said: list[str]) -> None:
    assert list(remarks({"weight": measure(torch.tensor(values))})) == said


def test_remarks_of_state_are_fewer() -> None:
    some: dict[str, Statistics] = {"exp_avg": measure(torch.tensor([0.0, 1.0, 900.0] + [0.0] * 2000))}
    assert list(remarks(some)) == []
    assert list(remarks({"exp_avg": measure(torch.tensor([math.nan, 0.0]))})) == ["exp_avg 1 of 2 NaN or infinite"]
    assert list(remarks({"exp_avg_sq": measure(torch.zeros(3))})) == ["exp_avg_sq all zeros"]
