"""Proposals are legal, fit, keep the batch and are ranked; nothing that would fit is missed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import apply_overrides
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import peak_memory
from megatron.planning.search.candidates import candidates, changes
from megatron.planning.search.search import Proposal, Search, largest_micro_batch, usable_bytes
from tests.unit.planning.builders import cluster, config, device_with, search

GIB = 2**30


def by_stages(layout: Layout) -> Layout:
    return replace(layout, pipeline=layout.stages)


def resolve_words(values: ConfigValues, words: tuple[str, ...], world_size: int) -> NeoXArgs:
    """The arguments of a run (not a plan) with the words."""
    return NeoXArgs.from_values(apply_overrides(values, words), world_size=world_size)


def check_proposal(found: Search, proposal: Proposal) -> None:
    """What every proposal promises."""
    args = resolve_words(found.values, proposal.words, found.cluster.world_size)
    assert by_stages(Layout.of(args)) == by_stages(proposal.layout), "the words give the layout"
    assert args.train_batch_size == found.args.train_batch_size, "and keep the batch"
    assert proposal.layout.world_size == found.cluster.world_size
    assert proposal.layout.tensor <= found.cluster.devices_per_node
    assert proposal.memory == peak_memory(found.args, proposal.layout, vocab_size=found.vocab_size)
    assert proposal.memory.total <= usable_bytes(found.cluster.device)


small_configs = st.fixed_dictionaries(
    {
        "num_layers": st.integers(1, 6),
        "heads": st.sampled_from([1, 2, 3, 4, 6, 8]),
        "shared": st.sampled_from([1, 2]),
        "mlp_multiple_of": st.sampled_from([1, 8]),
        "seq_length": st.sampled_from([30, 32]),
        "train_batch_size": st.sampled_from([1, 4, 6, 16, 24]),
        "gpt_j_residual": st.booleans(),
        "no_weight_tying": st.booleans(),
        "zero": st.integers(0, 3),
        "pipe_parallel_size": st.sampled_from([None, 0, 1]),
        "checkpoint_activations": st.booleans(),
        "norm": st.sampled_from(["layernorm", "rmsnorm"]),
        "kind": st.sampled_from(["global", "flash", "mamba", "rwkv"]),
        "moe_num_experts": st.sampled_from([1, 1, 4]),
    }
)
clusters = st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 4, 8]))


def small_values(drawn: dict[str, Any]) -> ConfigValues:
    keys = dict(drawn)
    heads, shared = keys.pop("heads"), keys.pop("shared")
    kind, zero = keys.pop("kind"), keys.pop("zero")
    assume(heads % shared == 0)
    return config(
        hidden_size=8 * heads,
        num_attention_heads=heads,
        num_kv_heads=heads // shared,
        attention_config=[[[kind], "all"]],
        zero_optimization={"stage": zero},
        train_micro_batch_size_per_gpu=1,
        **keys,
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(drawn=small_configs, shape=clusters, tightness=st.floats(0.0, 1.2))
def test_every_proposal_is_legal_and_one_is_made_exactly_when_one_fits(
    drawn: dict[str, Any], shape: tuple[int, int], tightness: float
) -> None:
    values = small_values(drawn)
    place = cluster(*shape)
    try:
        args = NeoXArgs.from_values(values, world_size=place.world_size, planning=True)
    except ConfigError:
        assume(False)
    everything = [layout for layout in candidates(args, place) if _is_accepted(values, layout, place.world_size)]
    sizes = [peak_memory(args, layout, vocab_size=512).total for layout in everything]
    usable = int(min(sizes, default=0) + tightness * (max(sizes, default=0) - min(sizes, default=0)))
    found = Search(
        args, values=values, cluster=replace(place, device=device_with(usable)), vocab_size=512, given=Layout.of(args)
    )
    fitting = [layout for layout, size in zip(everything, sizes, strict=True) if size <= found.usable]

    proposals = found.fastest(3)
    assert bool(proposals) == bool(fitting)
    for proposal in proposals:
        _check_planned(found, proposal)
    times = [proposal.time.total for proposal in proposals]
    assert times == sorted(times)
    if proposals:
        assert times[0] == pytest.approx(min(found.time(layout).total for layout in fitting))
        nearest = found.nearest(Layout.of(args))
        assert nearest is not None
        _check_planned(found, nearest)
        fewest = min(len(changes(Layout.of(args), layout)) for layout in fitting)
        assert len(changes(Layout.of(args), nearest.layout)) == fewest


def _is_accepted(values: ConfigValues, layout: Layout, world_size: int) -> bool:
    """Whether the config's checks accept a layout, written in full."""
    words = [
        f"pipe_parallel_size={layout.pipeline}",
        f"model_parallel_size={layout.tensor}",
        f"sequence_parallel={str(layout.sequence_parallel).lower()}",
        f"zero_optimization.stage={layout.zero_stage}",
        f"train_micro_batch_size_per_gpu={layout.micro_batch}",
        f"gradient_accumulation_steps={layout.accumulation}",
        f"checkpoint_activations={str(layout.recompute).lower()}",
    ]
    try:
        NeoXArgs.from_values(apply_overrides(values, words), world_size=world_size, planning=True)
    except ConfigError:
        return False
    return True


def _check_planned(found: Search, proposal: Proposal) -> None:
    """As check_proposal, for models that are not built, which only planning accepts."""
    values = apply_overrides(found.values, proposal.words)
    args = NeoXArgs.from_values(values, world_size=found.cluster.world_size, planning=True)
    assert by_stages(Layout.of(args)) == by_stages(proposal.layout)
    assert args.train_batch_size == found.args.train_batch_size
    assert proposal.layout.tensor <= found.cluster.devices_per_node
    assert proposal.memory.total <= found.usable


@pytest.mark.parametrize(
    "changes_of_config",
    [
        {},
        {"train_batch_size": None, "gradient_accumulation_steps": 4},
        {"train_batch_size": None},
        {"train_micro_batch_size_per_gpu": None, "batch_size": 4},
        {"train_micro_batch_size_per_gpu": None, "gradient_accumulation_steps": 2},
        {"zero_stage": 2},
        {"zero_optimization": {"stage": 3, "overlap_comm": True}},
        {"zero_optimization": {"stage": 1}, "zero_stage": 1},
        {"pipe_parallel_size": 2, "model_parallel_size": 4, "sequence_parallel": True},
        {"pipe_parallel_size": 1, "zero_optimization": {"stage": 2}},
        {"checkpoint_activations": True, "checkpoint_num_layers": 3},
    ],
    ids=str,
)
def test_the_words_are_accepted_by_a_run_whatever_spelling_the_config_uses(changes_of_config: dict[str, Any]) -> None:
    found = search(config(**changes_of_config), cluster())
    proposals = found.fastest(8)
    assert len(proposals) == 8
    for proposal in proposals:
        check_proposal(found, proposal)


def test_proposals_differ_in_grid_or_zero_stage_and_are_ranked() -> None:
    proposals = search(config(), cluster()).fastest(6)
    kinds = [(proposal.layout.stages, proposal.layout.tensor, proposal.layout.zero_stage) for proposal in proposals]
    assert len(set(kinds)) == 6
    times = [proposal.time.total for proposal in proposals]
    assert times == sorted(times)


def test_what_fits_already_needs_no_change() -> None:
    found = search(config(), cluster())
    assert found.given is not None
    nearest = found.nearest(found.given)
    assert nearest is not None
    assert nearest.layout == found.given
    assert nearest.words == ()


def test_the_smallest_change_is_one_setting_when_one_is_enough() -> None:
    roomy = search(config(), cluster())
    assert roomy.given is not None
    tight = search(config(), cluster(usable=roomy.memory(roomy.given).total - 1))
    nearest = tight.nearest(roomy.given)
    assert nearest is not None
    assert len(changes(roomy.given, nearest.layout)) == 1
    assert len(nearest.words) <= 2


def test_more_memory_never_makes_the_best_layout_slower() -> None:
    sizes = (3, 4, 6, 9, 14, 20, 40)
    best = [search(config(), cluster(usable=size * GIB)).fastest(1) for size in sizes]
    times = [proposals[0].time.total for proposals in best if proposals]
    assert len(times) >= 4
    assert times == sorted(times, reverse=True)
    assert times[-1] < times[0], "this config feels the difference"


def test_recomputation_never_raises_memory() -> None:
    found = search(config(), cluster(nodes=2))
    for layout in candidates(found.args, found.cluster):
        if not layout.recompute:
            assert found.memory(replace(layout, recompute=True)).total <= found.memory(layout).total, layout


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bfloat16"])
def test_a_larger_micro_batch_never_needs_less_memory_while_there_are_several(precision: str) -> None:
    """What the bisection relies on."""
    found = search(config(precision=precision), cluster(nodes=2))
    layouts = sorted(candidates(found.args, found.cluster), key=lambda layout: layout.micro_batch)
    families: dict[Layout, int] = {}
    for layout in layouts:
        if layout.accumulation > 1:
            family = replace(layout, micro_batch=0, accumulation=0)
            total = found.memory(layout).total
            assert total >= families.get(family, 0), layout
            families[family] = total


def test_nothing_fits_on_a_tiny_device() -> None:
    found = search(config(), cluster(usable=GIB // 8))
    assert found.given is not None
    assert found.fastest(3) == ()
    assert found.nearest(found.given) is None
    least = found.least_memory()
    assert least is not None
    totals = [found.memory(layout).total for layout in candidates(found.args, found.cluster)]
    assert least[1].total == min(totals)


def test_the_largest_micro_batch_fits_and_the_next_does_not() -> None:
    found = search(config(), cluster(usable=16 * GIB))
    assert found.given is not None
    largest = largest_micro_batch(found, found.given)
    samples = found.given.micro_batch * found.given.accumulation

    def fits(size: int) -> bool:
        assert found.given is not None
        return found.fits(replace(found.given, micro_batch=size, accumulation=max(samples // size, 1)))

    assert largest > 1
    assert fits(largest)
    assert not fits(largest + 1)


def test_the_largest_micro_batch_of_a_huge_batch_is_found_without_listing_the_sizes() -> None:
    found = search(config(train_batch_size=2**62, train_micro_batch_size_per_gpu=1), cluster(usable=16 * GIB))
    assert found.given is not None
    assert found.given.accumulation == 2**59
    assert 1 < largest_micro_batch(found, found.given) < 4096


@pytest.mark.parametrize("usable", [16 * GIB, GIB // 8])
def test_layers_that_cannot_be_divided_leave_layouts_without_a_pipeline(usable: int) -> None:
    legal = search(config(), cluster(usable=usable))
    args = legal.args.model_copy(update={"pipe_partition_method": "type:nothing"})
    found = Search(args, values=legal.values, cluster=legal.cluster, vocab_size=512, given=Layout.of(args))
    assert all(proposal.layout.stages == 1 for proposal in found.fastest(9))
    assert bool(found.fastest(9)) == (usable > GIB)
    least = found.least_memory()
    assert least is not None
    assert least[0].stages == 1


def test_a_batch_that_no_grid_divides_has_no_layout() -> None:
    values = config(num_layers=1, num_attention_heads=1, train_batch_size=8, train_micro_batch_size_per_gpu=1)
    found = search(values, cluster())
    odd = replace_batch(found, 7)
    assert list(candidates(odd, found.cluster)) == []


def replace_batch(found: Search, samples: int) -> NeoXArgs:
    return found.args.model_copy(update={"train_batch_size": samples})
