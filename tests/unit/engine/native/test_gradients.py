"""Gradients come into the flat buffers one at a time, and sums begin in the same order on every rank while others are still to come."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from megatron.engine.native import gradients as module
from megatron.engine.native.bucket import Bucket, build_buckets
from megatron.engine.native.exchange import Exchange
from megatron.engine.native.gradients import Gradients
from megatron.mpu.groups import SINGLE
from tests.unit.engine.native.test_bucket import parameters

ALONE = Exchange(SINGLE, divides=False, message=torch.float32)


class Recorder(Exchange):
    """Writes down in which order sums begin."""

    def start_sum(self, bucket: Bucket) -> Any:
        events.append(f"sum {bucket.places[0].parameter.numel()}")
        return super().start_sum(bucket)


events: list[str] = []


def buckets_of(given: list[nn.Parameter], *, limit: float = 1) -> list[Bucket]:
    return build_buckets(given, limit=limit, replicas=SINGLE, divides=False)


def run(given: list[nn.Parameter], factors: list[torch.Tensor]) -> None:
    """A backward pass with these gradients."""
    sum((each * factor).sum() for each, factor in zip(given, factors, strict=True)).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_micro_batches_are_summed_in_fp32(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 10)
    given = parameters(dtype=dtype)
    buckets = buckets_of(given)
    collected = Gradients(buckets, ALONE, overlaps=True)
    for step in range(2):  # the second must not find anything of the first
        factors = [[torch.randn(each.shape).to(dtype) for each in given] for _ in range(3)]
        collected.begin()
        for number, of_batch in enumerate(factors):
            if number == 2:
                collected.expect_last()
            run(given, of_batch)
            assert all(each.grad is None for each in given)
        collected.finish()
        for bucket in buckets:
            for place in bucket.places:
                index = next(i for i, each in enumerate(given) if each is place.parameter)
                expected = factors[0][index].float() + factors[1][index].float() + factors[2][index].float()
                assert torch.equal(place.of(bucket.gradients), expected), step


def test_a_parameter_without_gradient_keeps_none_of_the_step_before() -> None:
    given = parameters()
    buckets = buckets_of(given)
    collected = Gradients(buckets, ALONE, overlaps=True)
    for used in (given, given[1:]):
        collected.begin()
        collected.expect_last()
        run(used, [torch.ones(each.shape) for each in used])
        collected.finish()
    for bucket in buckets:
        for place in bucket.places:
            assert (place.of(bucket.gradients) == (0 if place.parameter is given[0] else 1)).all()


@pytest.mark.parametrize("overlaps", [True, False])
def test_sums_begin_in_the_order_of_buckets_while_the_last_pass_runs(overlaps: bool) -> None:
    events.clear()
    given = parameters()
    collected = Gradients(buckets_of(given), Recorder(SINGLE, divides=False, message=torch.float32), overlaps=overlaps)
    for each in given:
        each.register_post_accumulate_grad_hook(lambda one: events.append(f"gradient {one.numel()}"))
    collected.begin()
    run(given, [torch.ones(each.shape) for each in given])  # not the last pass: nothing is summed over the replicas
    assert not any(event.startswith("sum") for event in events)
    events.clear()
    collected.expect_last()
    ones = [torch.ones(each.shape) for each in given]
    for one in (3, 1, 2, 0):  # the second bucket is full before the first but one: it waits
        run([given[one]], [ones[one]])
    collected.finish()
    sums = ["sum 1", "sum 128", "sum 7", "sum 150"]
    assert [event for event in events if event.startswith("sum")] == sums
    if overlaps:
        assert events == [
            "sum 1",
            "gradient 1",
            "gradient 7",
            "sum 128",
            "sum 7",
            "gradient 128",
            "sum 150",
            "gradient 150",
        ]
    else:
        assert events[-4:] == sums
