"""The batch of each step: a pure function, equal to counting samples step by step as Megatron does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import BatchSchedule, Stage, batch_schedule, least_batch

STEPS = 300


def counted(start: int, increment: int, samples: int, full: int) -> list[int]:
    """The batches of the first steps by the rule for one step, which looks at the samples consumed so far."""
    batches: list[int] = []
    increments = (full - start) // increment
    consumed = 0
    for _ in range(STEPS):
        ramping = increments and consumed < samples
        batches.append(start + consumed * increments // samples * increment if ramping else full)
        consumed += batches[-1]
    return batches


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 20), st.integers(0, 500))
def test_a_ramp_is_what_counting_samples_gives(start: int, increment: int, increments: int, samples: int) -> None:
    full = start + increments * increment
    schedule = BatchSchedule.ramp_up(start=start, increment=increment, samples=samples, full=full)
    batches = counted(start, increment, samples, full)
    assert [schedule.batch_of(step) for step in range(STEPS)] == batches
    assert [schedule.samples_before(step) for step in range(STEPS)] == [sum(batches[:step]) for step in range(STEPS)]
    for taken in (0, samples // 2, samples, 3 * samples + 7):
        steps = schedule.steps_within(taken)
        assert schedule.samples_before(steps) <= taken < schedule.samples_before(steps + 1)


def test_the_ramp_of_a_published_run() -> None:
    """[32, 32, 1953125] to 1536, of a model of 530 billion parameters: 47 increments, each about 41,556 samples long."""
    schedule = BatchSchedule.ramp_up(start=32, increment=32, samples=1_953_125, full=1536)
    assert len(schedule.stages) == 48
    assert schedule.stages[1] == Stage(1299, 1299 * 32, 64)  # 1299 * 32 = 41,568, the first multiple beyond 41,555.9
    assert schedule.batch_of(10**9) == 1536
    assert schedule.stages[-1].first_sample - 1_953_125 in range(1504)


def test_a_constant_batch() -> None:
    schedule = BatchSchedule.constant(8)
    assert [schedule.batch_of(5), schedule.samples_before(5), schedule.steps_within(41)] == [8, 40, 5]
    args = NeoXArgs.from_dict({"num_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "seq_length": 8, "train_iters": 1, "train_batch_size": 8})  # fmt: skip
    assert batch_schedule(args) == schedule


@pytest.mark.parametrize(("ramp", "least"), [(None, 8), ([4, 4, 100], 4), ([4, 2, 100], 2)])
def test_every_batch_is_a_multiple_of_the_least_one(ramp: list[int] | None, least: int) -> None:
    sizes = {"num_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "seq_length": 8, "train_iters": 1}
    batches = {"train_batch_size": 8, "train_micro_batch_size_per_gpu": 2, "rampup_batch_size": ramp}
    args = NeoXArgs.from_dict({**sizes, **batches})
    assert least_batch(args) == least


@pytest.mark.parametrize("samples", [3, 40, 1000])
def test_a_run_goes_on_with_its_own_count_of_samples(samples: int) -> None:
    schedule = BatchSchedule.ramp_up(start=4, increment=4, samples=100, full=20)
    after = schedule.going_on(step=7, samples=samples)
    assert [after.batch_of(step) for step in range(30)] == [schedule.batch_of(step) for step in range(30)]
    assert after.samples_before(7) == samples
    assert after.samples_before(20) - samples == schedule.samples_before(20) - schedule.samples_before(7)
    assert after.steps_within(after.samples_before(20)) == 20
