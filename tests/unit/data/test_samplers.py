"""Samplers: the samples of a step do not depend on the layout."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.samplers import BatchPlan, samples_of_step

SMALL = st.integers(1, 6)


@settings(deadline=None)
@given(st.integers(0, 10**9), SMALL, SMALL, SMALL)
def test_all_ranks_together_read_the_global_batch_once(step, micro, accumulation, ranks):
    rows = [samples_of_step(step, BatchPlan(micro, accumulation, ranks, rank)) for rank in range(ranks)]
    batch = micro * accumulation * ranks
    together = sorted(i for rank in rows for micro_batch in rank for i in micro_batch)
    assert together == list(range(step * batch, (step + 1) * batch))
    assert all(len(rank) == accumulation and all(len(row) == micro for row in rank) for rank in rows)


def test_each_row_is_divided_among_the_ranks_in_order():
    # 2 micro-batches x 2 ranks x 3 samples; step 1 is samples 12 .. 23, in rows 12 .. 17 and 18 .. 23.
    plans = [
        BatchPlan(micro_batch=3, gradient_accumulation_steps=2, data_parallel_size=2, data_rank=rank) for rank in (0, 1)
    ]
    assert samples_of_step(1, plans[0]) == [range(12, 15), range(18, 21)]
    assert samples_of_step(1, plans[1]) == [range(15, 18), range(21, 24)]
    assert plans[0].global_batch == 12


def test_a_run_that_changes_its_batch_size_goes_on_at_the_next_sample() -> None:
    before, iterations = BatchPlan(micro_batch=4), 3
    for micro in (2, 8):
        after = BatchPlan(micro_batch=micro, offset=iterations * before.global_batch - iterations * micro)
        last = samples_of_step(iterations - 1, before)[-1][-1]
        assert samples_of_step(iterations, after)[0] == range(last + 1, last + 1 + micro)
