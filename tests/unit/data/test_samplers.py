"""Samplers: the samples of a step do not depend on the layout."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.samplers import BatchPlan, samples_of_step
from megatron.neox_arguments.batch_schedule import BatchSchedule

SMALL = st.integers(1, 6)


@settings(deadline=None)
@given(st.integers(0, 10**9), SMALL, SMALL, SMALL)
def test_all_ranks_together_read_the_global_batch_once(step, micro, accumulation, ranks):
    rows = [samples_of_step(step, BatchPlan.constant(micro, accumulation, ranks, rank)) for rank in range(ranks)]
    batch = micro * accumulation * ranks
    together = sorted(i for rank in rows for micro_batch in rank for i in micro_batch)
    assert together == list(range(step * batch, (step + 1) * batch))
    assert all(len(rank) == accumulation and all(len(row) == micro for row in rank) for rank in rows)


def test_each_row_is_divided_among_the_ranks_in_order():
    # 2 micro-batches x 2 ranks x 3 samples; step 1 is samples 12 .. 23, in rows 12 .. 17 and 18 .. 23.
    plans = [BatchPlan.constant(3, accumulation=2, data_parallel_size=2, data_rank=rank) for rank in (0, 1)]
    assert samples_of_step(1, plans[0]) == [range(12, 15), range(18, 21)]
    assert samples_of_step(1, plans[1]) == [range(15, 18), range(21, 24)]
    assert plans[0].schedule.batch_of(1) == 12


def test_a_run_that_changes_its_batch_size_goes_on_at_the_next_sample() -> None:
    before, iterations = BatchPlan.constant(4), 3
    for micro in (2, 8):
        schedule = BatchSchedule.constant(micro).going_on(step=iterations, samples=12)
        after = BatchPlan(micro, schedule)
        last = samples_of_step(iterations - 1, before)[-1][-1]
        assert samples_of_step(iterations, after)[0] == range(last + 1, last + 1 + micro)


def test_a_ramp_adds_micro_batches_to_the_steps() -> None:
    """Batches of 4, 4, 8 and 12 samples for 2 ranks with micro-batches of 2."""
    schedule = BatchSchedule.ramp_up(start=4, increment=4, samples=16, full=12)
    plans = [BatchPlan(2, schedule, data_parallel_size=2, data_rank=rank) for rank in (0, 1)]
    assert [plans[0].accumulation_of(step) for step in range(5)] == [1, 1, 2, 3, 3]
    for step in range(5):
        read = sorted(i for plan in plans for row in samples_of_step(step, plan) for i in row)
        assert read == list(range(schedule.samples_before(step), schedule.samples_before(step + 1)))
    assert samples_of_step(2, plans[1]) == [range(10, 12), range(14, 16)]
