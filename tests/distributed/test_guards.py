"""Guards on engines of two processes: copies that differ in a bit, numbers that are none, updates that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from megatron.errors import NeoXError
from megatron.mpu.shard import shard_of
from megatron.training.guards.desync import DesyncGuard
from megatron.training.guards.nonfinite import diagnose
from tests.deepspeed_world import Case, Engines, own_pieces, start_engine
from tests.worlds import run_world

DIVIDE_ALL = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
LAYOUTS = {
    "data 2": Case(data=2, accumulation=2),
    "data 2, stage 2, bf16": Case(data=2, zero=2, accumulation=2, precision="bfloat16"),
    "data 2, stage 3": Case(data=2, zero=3, accumulation=2),
    "data 2, stage 3, all divided": Case(data=2, zero=3, accumulation=2, overrides=DIVIDE_ALL),
    "tensor 2": Case(tensor=2, accumulation=2),
    "tensor 2, stage 3, all divided": Case(tensor=2, zero=3, accumulation=2, overrides=DIVIDE_ALL),
    "pipe 2, tied": Case(pipe=2, accumulation=2, tied=True),
    "pipe 2, bf16": Case(pipe=2, accumulation=2, precision="bfloat16"),
}
REPLICATED = {
    "data 2": "3.up.weight",
    "data 2, stage 2, bf16": "3.up.weight",
    "data 2, stage 3": "3.up.weight",
    "tensor 2": "3.scale",
    "tensor 2, stage 3, all divided": "3.scale",
    "pipe 2, tied": "0.word_embeddings.weight",
}
"""A parameter with copies on both ranks, where there is one."""

ON_SECOND = {"pipe 2, tied": "5.down", "pipe 2, bf16": "5.down"}
"""A module that the second rank runs; 3.down elsewhere."""


class Outcome(NamedTuple):
    """What one rank saw."""

    compared: list[str]
    in_step: str
    flipped: str
    forward: tuple[bool, str]
    backward: tuple[bool, str]
    infinite_loss: bool
    spoiled: str
    untouched_by_rehearsal: bool
    untouched_by_refusal: bool
    asked: list[tuple[float, float | None]]
    refused: list[Any]
    after: float
    after_without: float


@cache
def outcomes() -> list[dict[str, Outcome]]:
    return run_world(2, _guard_all)


def _guard_all(rank: int) -> dict[str, Outcome]:
    return {name: _guard(rank, name, case) for name, case in LAYOUTS.items()}


def _guard(rank: int, name: str, case: Case) -> Outcome:
    engines = start_engine(case)
    engine: Any = engines.engine
    engines.steps(0, 2)
    before = own_pieces(engine, for_saving=False)

    # A judge that refuses, numbers that are none, and a rehearsal leave everything as it was.
    asked: list[tuple[float, float | None]] = []
    engine.ask(lambda loss, norm: asked.append((loss, norm)) or False)
    refused = engines.step(2)
    engine.ask(None)
    untouched_by_refusal = _equal(before, own_pieces(engine, for_saving=False))
    module = ON_SECOND.get(name, "3.down")
    with _spoiling(engine.model, module if rank == 1 else None, _nan_forward, micro_batch=1):
        forward = engines.step(3).skipped, _diagnose(engines, step=3)
    with _spoiling(engine.model, module if rank == 1 else None, _infinite_backward, micro_batch=1):
        backward = engines.step(3).skipped, _diagnose(engines, step=3)
    with _infinite_loss(engine.objective):
        infinite_loss = engines.step(3).skipped
    engines.engine.rehearse()
    untouched_by_rehearsal = _equal(before, own_pieces(engine, for_saving=False))

    without = start_engine(case)
    without.steps(0, 2)
    after, after_without = engines.steps(4, 6)[-1], without.steps(4, 6)[-1]

    guard = DesyncGuard(engine, interval=1)
    compared = [replica.name for replica in engine.replicas()]
    in_step = _error(lambda: guard.check(6))
    if rank == 1 and name in REPLICATED:
        _flip_a_bit(engine, REPLICATED[name])
    flipped = _error(lambda: guard.check(6))
    if rank == 1:
        _spoil_a_weight(engine)
    spoiled = _error(lambda: _diagnose(engines, step=6))
    return Outcome(
        compared,
        in_step,
        flipped,
        forward,
        backward,
        infinite_loss,
        spoiled,
        untouched_by_rehearsal,
        untouched_by_refusal,
        asked,
        [refused],
        after.loss,
        after_without.loss,
    )


def _diagnose(engines: Engines, *, step: int) -> str:
    return diagnose(
        engines.engine,
        iteration=step + 1,
        documents=lambda number, micro_batch: f"those of step {number}, micro-batch {micro_batch}",
    )


def _error(function: Callable[[], Any]) -> str:
    try:
        function()
    except NeoXError as error:
        return str(error)
    return ""


def _equal(one: Any, other: Any) -> bool:
    values = zip(one.values(), other.values(), strict=True)
    return all((a[1] == b[1]).all() for (_, left), (_, right) in values for a, b in zip(left, right, strict=True))


@contextmanager
def _spoiling(
    model: nn.Module, name: str | None, spoil: Callable[[Tensor], Tensor], *, micro_batch: int
) -> Iterator[None]:
    """While it lasts, the module's output is spoiled in this micro-batch of every step of two."""
    if name is None:
        yield
        return
    calls = [0]

    def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        calls[0] += 1
        return spoil(output) if (calls[0] - 1) % 2 == micro_batch else output

    handle = model.get_submodule(name).register_forward_hook(hook)
    yield
    handle.remove()


def _nan_forward(output: Tensor) -> Tensor:
    return output * float("nan")


class _InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * float("inf")


def _infinite_backward(output: Tensor) -> Tensor:
    result: Tensor = _InfiniteGradient.apply(output)
    return result


@contextmanager
def _infinite_loss(objective: Any) -> Iterator[None]:
    """While it lasts, the loss is infinite and its gradients are what they were."""
    loss_sum = objective.loss_sum
    objective.loss_sum = lambda logits, batch: loss_sum(logits, batch) + float("inf")
    yield
    objective.loss_sum = loss_sum


def _flip_a_bit(engine: Any, name: str) -> None:
    values = next(replica.values for replica in engine.replicas() if replica.name == name).view(-1)
    integers = values.view({2: torch.int16, 4: torch.int32}[values.element_size()])
    integers[-1:] ^= 1


def _spoil_a_weight(engine: Any) -> None:
    parameter = next(parameter for parameter in engine.model.parameters() if shard_of(parameter).name == "5.up.weight")
    values = parameter.ds_tensor if hasattr(parameter, "ds_tensor") and not parameter.ds_persist else parameter
    values.data.view(-1)[3] = float("inf")


each_layout = pytest.mark.parametrize("name", LAYOUTS)


def of_ranks(name: str) -> list[Outcome]:
    return [of_rank[name] for of_rank in outcomes()]


@each_layout
def test_all_copies_are_compared_and_nothing_else(name: str) -> None:
    case, (first, second) = LAYOUTS[name], of_ranks(name)
    scales = [*(f"{block}.scale" for block in range(2, 6)), "7.scale"]
    if case.pipe:
        expected = ["0.word_embeddings.weight"] if case.tied else []
    elif case.tensor > 1:
        expected = [*scales, *(f"{block}.down.bias" for block in range(2, 6))]
    elif "divided" in name:
        expected = []
    else:
        expected = [shard_of(parameter).name for parameter in start_model(case).parameters()]
    assert sorted(first.compared) == sorted(second.compared) == sorted(expected)
    assert first.in_step == second.in_step == ""


@pytest.mark.parametrize("name", REPLICATED)
def test_a_single_flipped_bit_is_found_and_named(name: str) -> None:
    first, second = of_ranks(name)
    assert first.flipped == second.flipped
    assert (
        f'the weights of "{REPLICATED[name]}" are not the same on rank 1 as on rank 0 after iteration 6'
        in first.flipped
    )


@each_layout
def test_the_module_that_gives_the_first_nan_is_named(name: str) -> None:
    module = ON_SECOND.get(name, "3.down")
    for outcome in of_ranks(name):
        skipped, message = outcome.forward
        assert skipped
        assert message == (
            f"run again, the first number that is not finite comes out of the forward pass of {module} (RowParallelLinear) on rank 1, in "
            "micro-batch 2 of the step, made of those of step 3, micro-batch 1"
        )


@each_layout
def test_the_module_that_gives_the_first_infinite_gradient_is_named(name: str) -> None:
    module = ON_SECOND.get(name, "3.down")
    for outcome in of_ranks(name):
        skipped, message = outcome.backward
        assert skipped
        assert f"comes out of the backward pass of {module} (RowParallelLinear)" in message
        assert " on rank 1, in micro-batch 2 of the step, made of those of step 3" in message


@each_layout
def test_weights_that_are_no_numbers_are_named(name: str) -> None:
    for outcome in of_ranks(name):
        assert 'the weights of "5.up.weight" are not all finite on rank 1 in iteration 7' in outcome.spoiled


@each_layout
def test_no_update_is_made_of_an_infinite_loss(name: str) -> None:
    assert all(outcome.infinite_loss for outcome in of_ranks(name))


@each_layout
def test_what_is_refused_or_rehearsed_leaves_no_trace(name: str) -> None:
    first, second = of_ranks(name)
    for outcome in (first, second):
        assert outcome.untouched_by_refusal
        assert outcome.untouched_by_rehearsal
        assert outcome.after == outcome.after_without
    ((refused,), ((loss, norm),)) = first.refused, first.asked
    assert first.asked == second.asked
    assert refused.withheld
    assert not refused.skipped
    assert (loss, norm) == (refused.loss, refused.grad_norm)
    assert math.isfinite(loss)


def start_model(case: Case) -> nn.Module:
    from megatron.model.sequential import SequentialModel
    from megatron.model.spec import BuildContext

    return SequentialModel(case.specs(), BuildContext(device="meta"), seed=None)
