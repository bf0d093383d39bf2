"""The estimate of a step: counted by hand where that is possible, and with the directions that the layouts must have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.planning.hardware.devices import DEVICES, Cluster
from megatron.planning.layout import Layout
from megatron.planning.model.flops import model_flops_per_token
from megatron.planning.search.throughput import COLLECTIVE_EFFICIENCY, EFFICIENCY, HALF_PER_SINGLE, StepTime, step_time
from megatron.planning.search.work import Work
from tests.unit.planning.builders import arguments, cluster

A100 = DEVICES["A100-80GB"]
NODE = cluster()
LARGE = Layout(micro_batch=8, accumulation=8)


def work(**changes: Any) -> Work:
    return Work.of(arguments(**changes), vocab_size=512)


def time(layout: Layout, place: Cluster = NODE, **changes: Any) -> StepTime:
    return step_time(work(**changes), layout, place)


def test_one_device_takes_its_flops_at_the_efficiency_and_nothing_else() -> None:
    args = arguments()
    tokens = LARGE.micro_batch * LARGE.accumulation * args.seq_length
    seconds = model_flops_per_token(args, vocab_size=512) * tokens / (A100.peak_flops * EFFICIENCY)
    found = time(LARGE)
    assert found.compute == pytest.approx(seconds)
    assert found.total == found.compute


def test_fp32_is_slower_by_the_ratio_of_the_units() -> None:
    assert time(LARGE, precision="fp32").compute == pytest.approx(HALF_PER_SINGLE * time(LARGE).compute)


def test_recomputation_repeats_the_blocks_but_not_the_head() -> None:
    found = time(replace(LARGE, recompute=True))
    assert found.compute == time(LARGE).compute
    assert found.compute / 3 * 0.98 < found.recomputation < found.compute / 3


def test_the_bubble_is_its_share_of_a_step() -> None:
    stages, passes = 4, 8
    found = time(Layout(pipeline=stages, micro_batch=8, accumulation=passes), no_weight_tying=False)
    sends = 2 * 8 * 1024 * 2048 * 2 / (A100.link_bytes_per_second * COLLECTIVE_EFFICIENCY)
    busy = found.compute / passes + sends
    assert found.pipeline == pytest.approx(passes * sends + (stages - 1) * busy)
    assert (stages - 1) * busy / found.total == pytest.approx((stages - 1) / (passes + stages - 1))


def test_the_slowest_stage_decides() -> None:
    """12 blocks over 5 stages: one has three, which takes longer than the two and the small head of the last."""
    even, uneven = time(Layout(pipeline=4, accumulation=8)), time(Layout(pipeline=5, accumulation=8))
    assert uneven.compute == pytest.approx(even.compute, rel=0.02)


def test_tensor_ranks_reduce_activations_over_their_links() -> None:
    """A sequential block: two all-reduces forward that nothing hides; as much in the backward pass, beside its products."""
    layout = Layout(tensor=8, micro_batch=8, accumulation=1)
    half = 8 * 1024 * 2048 * 2 * 7 / 8 / (A100.link_bytes_per_second * COLLECTIVE_EFFICIENCY)
    assert time(layout).tensor == pytest.approx(12 * half * (4 + 0.2 * 4))
    assert time(replace(layout, recompute=True)).tensor == pytest.approx(12 * half * (2 * 4 + 0.2 * 4))
    assert time(layout, gpt_j_residual=True).tensor == pytest.approx(12 * half * (2 + 0.2 * 4))
    assert time(replace(layout, sequence_parallel=True)).tensor == pytest.approx(12 * half * (4 + 2 + 0.2 * 4))


def test_context_ranks_share_the_work_and_trade_heads_over_their_links() -> None:
    """Queries, keys, values and results of a rank's tokens, there and back; recomputation trades once more."""
    layout = Layout(context=8, micro_batch=8, accumulation=1)
    trade = 8 * 1024 / 8 * 4 * 2048 * 2 * 7 / 8 / (A100.link_bytes_per_second * COLLECTIVE_EFFICIENCY)
    assert time(layout).context == pytest.approx(12 * 2 * trade)
    assert time(layout).compute == pytest.approx(time(replace(layout, context=1)).compute / 8)
    assert time(replace(layout, recompute=True)).context == pytest.approx(12 * 3 * trade)
    assert time(layout, num_kv_heads=8).context == pytest.approx(12 * 2 * trade * 3 / 4)
    assert time(layout, num_kv_heads=2).context == pytest.approx(12 * 2 * trade * 3 / 4), "each is sent to four ranks"
    assert time(layout).data == time(replace(layout, data=8, context=1)).data
    assert time(layout, Cluster(8, 1, A100)).context > 5 * time(layout).context


def test_data_parallel_ranks_reduce_gradients_once_a_step() -> None:
    args = arguments()
    few, many = (time(Layout(data=8, zero_stage=1, accumulation=passes)).data for passes in (1, 16))
    parameters = Work.of(args, vocab_size=512).parameters
    expected = 2 * 2 * parameters * 7 / 8 / (A100.link_bytes_per_second * COLLECTIVE_EFFICIENCY)
    assert few == many == pytest.approx(expected)


def test_zero_2_and_3_talk_more_with_every_micro_batch() -> None:
    stages = [time(Layout(data=8, zero_stage=stage, accumulation=4)).data for stage in (1, 2, 3)]
    assert stages == sorted(stages)
    assert stages[0] < stages[1] < stages[2]
    hidden = time(
        Layout(data=8, zero_stage=3, accumulation=4), zero_optimization={"stage": 3, "overlap_comm": True}
    ).data
    assert hidden < stages[2]


def test_networks_are_slower_than_nodes() -> None:
    apart = Cluster(8, 1, A100)
    layout = Layout(data=8, zero_stage=1)
    assert time(layout, apart).data > 5 * time(layout, NODE).data
    pipeline = Layout(pipeline=8, accumulation=8)
    assert time(pipeline, apart).pipeline > time(pipeline, NODE).pipeline


@settings(deadline=None)
@given(
    tensor=st.sampled_from([1, 2, 4, 8]),
    stages=st.sampled_from([1, 2, 3, 4]),
    data=st.sampled_from([1, 2, 8]),
    context=st.sampled_from([1, 2, 4]),
    micro_batch=st.integers(1, 8),
    accumulation=st.integers(1, 16),
    zero_stage=st.integers(0, 3),
    sequence_parallel=st.booleans(),
    recompute=st.booleans(),
)
def test_no_cause_takes_negative_time_and_recomputation_always_costs(**settings: Any) -> None:
    layout = Layout(**{("pipeline" if key == "stages" else key): value for key, value in settings.items()})
    found = time(layout, cluster(nodes=24))
    assert all(share >= 0 for share in found.shares().values())
    assert sum(found.shares().values()) == pytest.approx(1)
    assert time(replace(layout, recompute=True), cluster(nodes=24)).total >= found.total
    assert time(replace(layout, accumulation=layout.accumulation + 1), cluster(nodes=24)).total > found.total
