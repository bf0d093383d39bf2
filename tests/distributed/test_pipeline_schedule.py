"""What the pipeline's schedule promises, seen on real stages: live activations, and the times in the metrics."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from megatron.training.pipeline_meter import PipelineMeter, PipelineTimes
from tests.deepspeed_world import Case, start_engine
from tests.worlds import run_world

CASES = {
    "4 stages, 1 micro-batch": Case(pipe=4, accumulation=1),
    "4 stages, 2 micro-batches": Case(pipe=4, accumulation=2),
    "4 stages, 6 micro-batches": Case(pipe=4, accumulation=6),
    "2 stages, 4 micro-batches": Case(pipe=2, data=2, accumulation=4),
}


class Kept:
    """A tensor that autograd keeps for the backward pass of a micro-batch; counted as long as it lives."""

    def __init__(self, tensor: Tensor, micro_batch: int, living: Counter[int]) -> None:
        self.tensor = tensor
        self._micro_batch = micro_batch
        self._living = living
        living[micro_batch] += 1

    def __del__(self) -> None:
        self._living[self._micro_batch] -= 1


class Outcome(NamedTuple):
    """What one rank saw of a case."""

    stage: int
    live: int
    left: int
    times: PipelineTimes | None
    untimed: PipelineTimes | None


@cache
def outcomes() -> list[dict[str, Outcome]]:
    return run_world(4, _train_all)


def _train_all(rank: int) -> dict[str, Outcome]:
    return {name: _train(case) for name, case in CASES.items()}


def _train(case: Case) -> Outcome:
    engines = start_engine(case)
    engine: Any = engines.engine
    living: Counter[int] = Counter()
    begun, most = [0], [0]

    def begin(module: Any, arguments: Any) -> None:
        begun[0] += 1

    def keep(tensor: Tensor) -> Kept:
        kept = Kept(tensor, begun[0], living)
        most[0] = max(most[0], sum(count > 0 for count in living.values()))
        return kept

    handle = engine.model.register_forward_pre_hook(begin)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        engines.step(0)
    handle.remove()
    meter = PipelineMeter(engine, interval=2)
    times = []
    for iteration in (2, 3):
        meter.begin(iteration)
        engines.step(iteration)
        times.append(meter.read(micro_batches=case.accumulation))
    left = sum(count > 0 for count in living.values())
    return Outcome(engines.groups.pipe.rank, most[0], left, *times)


@pytest.mark.parametrize("name", CASES)
def test_a_stage_keeps_the_activations_of_as_many_micro_batches_as_are_under_way(name: str) -> None:
    case = CASES[name]
    for of_rank in outcomes():
        outcome = of_rank[name]
        assert outcome.live == min(case.accumulation, case.pipe - outcome.stage)
        assert outcome.left == 0


@pytest.mark.parametrize("name", CASES)
def test_shown_steps_have_the_times_of_all_stages(name: str) -> None:
    case = CASES[name]
    for of_rank in outcomes():
        times = of_rank[name].times
        assert times is not None
        assert of_rank[name].untimed is None
        assert len(times.stage_seconds) == case.pipe
        assert min(times.stage_seconds) > 0
        assert times.expected == (case.pipe - 1) / (case.accumulation + case.pipe - 1)
        assert 0 < times.bubble < 1
    of_one_pipeline = {of_rank[name].times for of_rank in outcomes()[:: 4 // case.pipe]}
    assert len(of_one_pipeline) == 1
