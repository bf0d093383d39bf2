"""Contiguous, balanced pipeline stages."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from megatron.engine.partition import partition_layers
from megatron.errors import ConfigError
from megatron.model.spec import BuildContext, LayerSpec
from megatron.planning.model.partition import balanced_bounds


def build(context: BuildContext) -> nn.Module:
    """A layer without parameters."""
    return nn.Identity()


def gpt(blocks: int) -> list[LayerSpec]:
    names = ["embedding", *["transformer"] * blocks, "norm", "head"]
    return [LayerSpec(number, name, build) for number, name in enumerate(names)]


def count(spec: LayerSpec) -> int:
    return {"embedding": 40, "transformer": 10, "norm": 1, "head": 40}[spec.name]


@pytest.mark.parametrize(
    ("blocks", "stages", "method", "bounds"),
    [
        (4, 1, "type:transformer|mlp", [0, 7]),
        (4, 2, "type:transformer|mlp", [0, 3, 7]),
        (6, 4, "type:TRANSFORMER", [0, 3, 5, 6, 9]),
        (8, 4, "type:transformer", [0, 3, 5, 7, 11]),
        (3, 2, "uniform", [0, 3, 6]),
        (6, 3, "parameters", [0, 2, 7, 9]),
    ],
)
def test_stages_are_balanced_by_the_chosen_weight(blocks: int, stages: int, method: str, bounds: list[int]) -> None:
    found = partition_layers(gpt(blocks), stages, method=method, count_parameters=count)
    assert len(found) == len(bounds)
    assert _loads(gpt(blocks), found, method) == _loads(gpt(blocks), bounds, method)
    assert found[0] == 0
    assert found[-1] == len(gpt(blocks))


def _loads(specs: list[LayerSpec], bounds: list[int], method: str) -> list[int]:
    weigh = {"t": lambda spec: int(spec.name == "transformer"), "u": lambda spec: 1, "p": count}[method[0]]
    return sorted(sum(weigh(spec) for spec in specs[begin:end]) for begin, end in itertools.pairwise(bounds))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7), st.integers(1, 4))
def test_no_other_cut_has_a_lighter_heaviest_stage(weights: list[int], stages: int) -> None:
    if stages > len(weights):
        return
    bounds = balanced_bounds(weights, stages)
    assert sorted(set(bounds)) == bounds
    every = itertools.combinations(range(1, len(weights)), stages - 1)
    best = min(_heaviest(weights, [0, *cut, len(weights)]) for cut in every)
    assert _heaviest(weights, bounds) == best


def _heaviest(weights: list[int], bounds: list[int]) -> int:
    return max(sum(weights[begin:end]) for begin, end in itertools.pairwise(bounds))


@pytest.mark.parametrize(
    ("stages", "method", "message"),
    [
        (9, "uniform", '"pipe_parallel_size" is 9, but the model has only 7 layers'),
        (2, "type:mamba", "matches no layer: the layers are called embedding, head, norm, transformer"),
        (2, "best", '"pipe_partition_method" is "best": choose one of'),
    ],
)
def test_impossible_partitions_are_refused(stages: int, method: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        partition_layers(gpt(4), stages, method=method, count_parameters=count)
