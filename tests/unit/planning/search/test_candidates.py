"""The grids that are looked at divide what they must, and none that does is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from megatron.planning.layout import Layout
from megatron.planning.search.candidates import candidates, changes, divisors, with_micro_batch
from tests.unit.planning.builders import arguments, cluster


def grids(world_size: int, devices_per_node: int, **config: object) -> set[tuple[int, int, int]]:
    args = arguments(**config)
    place = cluster(world_size // devices_per_node, devices_per_node)
    return {(layout.stages, layout.data, layout.tensor) for layout in candidates(args, place)}


@pytest.mark.parametrize(
    ("nodes", "per_node", "heads", "shared", "width", "layers", "batch"),
    [(2, 8, 16, 16, 8192, 12, 64), (3, 4, 12, 6, 96, 5, 24), (1, 6, 12, 12, 100, 3, 10), (1, 8, 8, 2, 64, 4, 1)],
)
def test_all_grids_that_divide_are_candidates_and_no_others(
    nodes: int, per_node: int, heads: int, shared: int, width: int, layers: int, batch: int
) -> None:
    world = nodes * per_node
    expected = {
        (stages, data, tensor)
        for stages, data, tensor in product(range(1, world + 1), repeat=3)
        if stages * data * tensor == world
        and tensor <= per_node
        and per_node % tensor == heads % tensor == shared % tensor == width % tensor == 0
        and stages <= layers
        and batch % data == 0
    }
    found = grids(
        world,
        per_node,
        num_attention_heads=heads,
        num_kv_heads=shared,
        hidden_size=16 * heads,
        intermediate_size=width,
        num_layers=layers,
        train_batch_size=batch,
        train_micro_batch_size_per_gpu=1,
    )
    assert found == expected
    assert found


def test_every_candidate_keeps_the_batch_and_the_devices() -> None:
    args, place = arguments(train_batch_size=48), cluster(3)
    for layout in candidates(args, place):
        assert layout.micro_batch * layout.accumulation * layout.data == 48
        assert layout.world_size == 24


def test_every_batch_of_a_ramp_divides() -> None:
    found = list(candidates(arguments(train_batch_size=48, rampup_batch_size=[16, 8, 1000]), cluster(1)))
    assert {layout.data * layout.micro_batch for layout in found} == {1, 2, 4, 8}
    assert {layout.data * layout.micro_batch * layout.accumulation for layout in found} == {48}


def test_each_grid_comes_once_in_every_way_that_works() -> None:
    every = list(candidates(arguments(), cluster()))
    assert len(set(every)) == len(every)
    stages = Counter((layout.stages > 1, layout.zero_stage) for layout in every)
    assert set(stages) == {(True, 0), (False, 0), (False, 2), (False, 3)}, "ZeRO 2 and 3 only without a pipeline"
    assert {layout.recompute for layout in every} == {False, True}
    assert {layout.sequence_parallel for layout in every if layout.tensor == 1} == {False}
    assert {layout.sequence_parallel for layout in every if layout.tensor > 1} == {False, True}


def test_the_context_ranks_of_the_config_stay() -> None:
    args = arguments(world_size=16, context_parallel_size=4)
    every = list(candidates(args, cluster(2)))
    assert {layout.context for layout in every} == {4}
    assert {layout.world_size for layout in every} == {16}
    assert {layout.tensor for layout in every} == {1, 2, 4}, "of 16 heads, 4 for each context rank at least"
    alone = [layout for layout in every if layout.data == 1 and layout.stages == 1]
    assert {layout.zero_stage for layout in alone} == {0, 2, 3}, "gradients are divided among context ranks, too"


def test_a_sequence_that_ranks_cannot_share_is_not_divided() -> None:
    divided = {
        layout.tensor for layout in candidates(arguments(seq_length=1020), cluster()) if layout.sequence_parallel
    }
    assert divided == {2, 4}


def test_changes_are_what_a_user_sets() -> None:
    layout = Layout(pipeline=1, data=8, micro_batch=2, accumulation=4)
    assert changes(layout, layout) == ()
    assert changes(layout, replace(layout, pipeline=0)) == (), "one stage is one stage"
    assert changes(layout, replace(layout, zero_stage=1)) == (), "stage 0 runs as stage 1"
    assert changes(layout, replace(layout, pipeline=2, data=4, accumulation=8)) == ("pipeline stages",)
    assert changes(layout, replace(layout, micro_batch=1, accumulation=8, recompute=True)) == (
        "micro-batch",
        "recomputation",
    )


def test_arithmetic() -> None:
    assert divisors(12, most=5) == [1, 2, 3, 4]
    assert with_micro_batch(Layout(micro_batch=2, accumulation=6), 3) == Layout(micro_batch=3, accumulation=4)
