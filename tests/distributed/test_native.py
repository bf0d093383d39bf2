"""Training without DeepSpeed computes what plain torch on one process computes, and what DeepSpeed does, in every layout it is built for.

All cases of a world size run in one world. Bit for bit where nothing is rounded in another order: resuming in the same layout.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from megatron.engine.protocol import StepResult
from megatron.mpu.collectives import all_gather_objects
from tests.deepspeed_world import (
    Case,
    Engines,
    Pieces,
    Reference,
    assemble,
    assert_close,
    fill_state,
    own_pieces,
    reference_run,
    start_engine,
)
from tests.worlds import run_world

STEPS = 10

NATIVE = {"deepspeed": False}
SMALL_BUCKETS = {"reduce_bucket_size": 500}
RECOMPUTE = {"checkpoint_activations": True, "checkpoint_num_layers": 2}


def native(zero: int = 0, *, overrides: dict[str, Any] | None = None, **options: Any) -> Case:
    """A case without DeepSpeed, with several buckets a parameter group."""
    sections = {"zero_optimization": {"stage": zero, **SMALL_BUCKETS}}
    return Case(zero=zero, overrides={**NATIVE, **sections, **(overrides or {})}, **options)


LAYOUTS = {
    "one process, 4 micro-batches, tied": native(accumulation=4, tied=True),
    "one process, stage 1, recomputing": native(1, overrides=RECOMPUTE),
    "one process, not clipped": native(overrides={"gradient_clipping": 0.0}),
    "data 2": native(data=2, tied=True),
    "data 2, stage 1, 2 micro-batches": native(1, data=2, accumulation=2),
    "data 2, stage 1, reduced at the end": native(
        1, data=2, tied=True, overrides={"zero_optimization": {"stage": 1, "overlap_comm": False}}
    ),
    "tensor 2": native(tensor=2, tied=True),
    "tensor 2 in sequence, gpt": native(1, tensor=2, gpt=True, overrides={"sequence_parallel": True}),
    "context 2, stage 1, gpt": native(1, context=2, gpt=True, accumulation=2),
    "data 2 x tensor 2": native(data=2, tensor=2, accumulation=2),
    "data 2 x tensor 2, stage 1, tied": native(1, data=2, tensor=2, tied=True),
    "context 2 x tensor 2, stage 1": native(
        1, context=2, tensor=2, gpt=True, tied=True, overrides={"num_attention_heads": 4}
    ),
}


class Outcome(NamedTuple):
    """What one rank saw of a case."""

    results: list[StepResult]
    saved: Pieces
    held: Pieces
    scalars: dict[str, float | int]
    evaluation: tuple[float, float]


@cache
def plain(name: str) -> Reference:
    return reference_run(LAYOUTS[name], STEPS)


@cache
def world(size: int) -> dict[str, list[Any]]:
    """What the ranks of a world of this size saw, by the name of a layout or of a special case."""
    of_ranks = run_world(size, _run, size)
    return {name: [of_rank[name] for of_rank in of_ranks] for name in of_ranks[0]}


def _run(rank: int, size: int) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, case in LAYOUTS.items():
        if case.world_size == size:
            started = start_engine(case)
            seen[name] = Outcome(
                started.steps(0, STEPS),
                own_pieces(started.engine, for_saving=True),
                own_pieces(started.engine, for_saving=False),
                started.engine.state_scalars(),
                started.engine.evaluate_step(started.batches(STEPS)),
            )
    return {**seen, **({name: special() for name, special in SPECIAL.items()} if size == 2 else {})}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_run_equals_plain_torch_on_one_process(name: str) -> None:
    of_ranks, reference = world(LAYOUTS[name].world_size)[name], plain(name)
    assert [result.loss for result in of_ranks[0].results] == pytest.approx(reference.losses, rel=5e-6)
    assert [result.grad_norm for result in of_ranks[0].results] == pytest.approx(reference.norms, rel=5e-6)
    assert not any(result.skipped or result.withheld for result in of_ranks[0].results)
    assert all(each.results == of_ranks[0].results for each in of_ranks)
    held, _ = assemble([each.held for each in of_ranks])
    assert_close(held, reference.states[-1])
    assert all(each.evaluation == pytest.approx(reference.evaluation, rel=2e-6) for each in of_ranks)
    assert all(each.evaluation == of_ranks[0].evaluation for each in of_ranks)


@pytest.mark.parametrize("name", LAYOUTS)
def test_saved_pieces_give_every_weight_and_moment_exactly_once(name: str) -> None:
    of_ranks = world(LAYOUTS[name].world_size)[name]
    saved, counts = assemble([each.saved for each in of_ranks])
    assert all(bool((count == 1).all()) for count in counts.values())
    assert_close(saved, plain(name).states[-1])
    assert all(each.scalars == {"optimizer_step": STEPS} for each in of_ranks)


# What is asked of two ranks beside.

WITH_DEEPSPEED = {"deepspeed": True, "communication_data_type": "fp32"}
HALF = native(1, data=2, accumulation=4, tied=True, precision="bfloat16")
HALVES = {
    "bf16, data 2, stage 1": HALF,
    "bf16, data 2, stage 0": replace(HALF, zero=0, overrides={**HALF.overrides, "zero_optimization": {"stage": 0}}),
    "bf16, data 2, bf16 messages": replace(HALF, overrides={**HALF.overrides, "communication_data_type": "bf16"}),
    "bf16, tensor 2": native(tensor=2, accumulation=4, tied=True, precision="bfloat16"),
}


def _halves() -> dict[str, tuple[list[StepResult], Pieces]]:
    seen = {}
    for name, case in {**HALVES, "DeepSpeed": replace(HALF, overrides=WITH_DEEPSPEED)}.items():
        started = start_engine(case)
        seen[name] = started.steps(0, 5), own_pieces(started.engine, for_saving=True)
    return seen


@pytest.mark.parametrize("name", HALVES)
def test_bfloat16_stays_as_near_to_plain_fp32_as_deepspeed_does(name: str) -> None:
    """Backward passes round at other places, as gradients are of the sum here and of the mean there."""
    reference = reference_run(HALF, 5)
    for each in world(2)["halves"]:
        (results, saved), (theirs, _) = each[name], each["DeepSpeed"]
        assert [result.loss for result in results] == pytest.approx(reference.losses, rel=3e-3)
        assert [result.grad_norm for result in results] == pytest.approx(reference.norms, rel=3e-2)
        assert [result.loss for result in results] == pytest.approx([result.loss for result in theirs], rel=3e-3)
        if HALVES[name].tensor == 1:  # the same layout: so far only the gradients have been rounded
            assert results[0].loss == pytest.approx(theirs[0].loss, rel=1e-6)
            assert results[0].grad_norm == pytest.approx(theirs[0].grad_norm, rel=3e-3)
    saved, _ = assemble([each[name][1] for each in world(2)["halves"]])
    for key, tensor in reference.states[-1].items():
        if key.endswith("exp_avg"):
            assert float((saved[key] - tensor).norm() / tensor.norm()) < 0.06, key


RELAY = (
    Case(data=2, zero=2),
    native(1, data=2),
    Case(tensor=2, zero=1, accumulation=2),
    native(tensor=2),
    native(0, data=2, accumulation=2),
)


def _relay() -> list[StepResult]:
    """Two steps with each engine, which goes on from the state of the one before."""
    results: list[StepResult] = []
    state: dict[str, Tensor] | None = None
    scalars: dict[str, float | int] = {}
    for number, case in enumerate(RELAY):
        started = start_engine(case)
        if state is not None:
            fill_state(started.engine, state, scalars)
        results += started.steps(2 * number, 2 * number + 2)
        pieces = all_gather_objects(own_pieces(started.engine, for_saving=True), started.groups.world)
        state, scalars = assemble(pieces)[0], started.engine.state_scalars()
    return results


def test_a_run_goes_from_deepspeed_to_the_native_engine_and_back() -> None:
    reference = reference_run(Case(), 2 * len(RELAY))
    for results in world(2)["relay"]:
        assert [result.loss for result in results] == pytest.approx(reference.losses, rel=5e-6)
        assert [result.grad_norm for result in results] == pytest.approx(reference.norms, rel=5e-6)


def _resumed() -> list[tuple[list[StepResult], list[StepResult]]]:
    pairs = []
    for case in (
        HALF,
        HALVES["bf16, data 2, stage 0"],
        HALVES["bf16, tensor 2"],
        LAYOUTS["data 2, stage 1, 2 micro-batches"],
    ):
        first, second = start_engine(case), start_engine(case)
        first.steps(0, 3)
        _copy_state(first, second)
        pairs.append((first.steps(3, 5), second.steps(3, 5)))
    return pairs


def _copy_state(source: Engines, target: Engines) -> None:
    """Every process's pieces to the same process of the other engine."""
    state = source.engine.state_tensors()
    for name, full in target.engine.state_tensors().items():
        for mine, theirs in zip(full.pieces, state[name].pieces, strict=True):
            mine.tensor.copy_(theirs.tensor)
    target.engine.load_scalars(source.engine.state_scalars())
    target.engine.after_load()


def test_resuming_in_the_same_layout_is_exact_to_the_bit() -> None:
    for pairs in world(2)["resumed"]:
        assert all(continued == resumed for continued, resumed in pairs)


def _disturbed() -> dict[str, tuple[StepResult | None, bool, StepResult, StepResult]]:
    """By the disturbance of a step: its result, whether it left the state alone, the step after it, and that of an undisturbed engine."""
    seen = {}
    for name, disturb in DISTURBANCES.items():
        for case in (HALF, native(data=2)):
            disturbed, other = start_engine(case), start_engine(case)
            for each in (disturbed, other):
                each.steps(0, 2)
            before = own_pieces(disturbed.engine, for_saving=False)
            with disturb(disturbed):
                result = disturbed.step(2) if name != "a rehearsal" else None
                if result is None:
                    disturbed.engine.rehearse()
            kept = _equal(own_pieces(disturbed.engine, for_saving=False), before)
            kept = kept and disturbed.engine.state_scalars() == {"optimizer_step": 2}
            seen[f"{name}, {case.precision}"] = result, kept, disturbed.step(3), other.step(3)
    return seen


def _equal(one: Pieces, other: Pieces) -> bool:
    return all(
        (mine == theirs).all()
        for name in other
        for (_, mine), (_, theirs) in zip(one[name][1], other[name][1], strict=True)
    )


@contextmanager
def _infinite_gradient(started: Engines) -> Iterator[None]:
    """On one rank, in one value; the judge is not asked."""

    def spoil(gradient: Tensor) -> Tensor:
        spoilt = gradient.clone()
        spoilt.view(-1)[-1] = math.inf
        return spoilt

    def judge(loss: float, norm: float | None) -> bool:
        raise AssertionError

    started.engine.ask(judge)
    if started.groups.rank == 1:
        handle = next(started.engine.model.parameters()).register_hook(spoil)
    yield
    started.engine.ask(None)
    if started.groups.rank == 1:
        handle.remove()


@contextmanager
def _infinite_loss(started: Engines) -> Iterator[None]:
    """On one rank, with gradients that are finite."""
    engine: Any = started.engine
    right = engine.objective.loss_sum
    if started.groups.rank == 1:
        engine.objective.loss_sum = lambda *given: right(*given) + math.inf
    yield
    engine.objective.loss_sum = right


@contextmanager
def _refused(started: Engines) -> Iterator[None]:
    asked: list[tuple[float, float | None]] = []

    def refuse(loss: float, norm: float | None) -> bool:
        asked.append((loss, norm))
        return False

    started.engine.ask(refuse)
    yield
    started.engine.ask(None)
    ((loss, norm),) = asked
    assert norm is not None
    assert math.isfinite(loss + norm)


@contextmanager
def _rehearsed(started: Engines) -> Iterator[None]:
    yield


DISTURBANCES: dict[str, Callable[[Engines], Any]] = {
    "an infinite gradient": _infinite_gradient,
    "an infinite loss": _infinite_loss,
    "a judge": _refused,
    "a rehearsal": _rehearsed,
}


@pytest.mark.parametrize(
    "name", [f"{name}, {precision}" for name in DISTURBANCES for precision in ("bfloat16", "fp32")]
)
def test_a_step_that_is_kept_out_leaves_everything_as_it_was(name: str) -> None:
    for each in world(2)["disturbed"]:
        result, kept, following, undisturbed = each[name]
        assert kept
        assert following == undisturbed
        if result is not None:
            assert (result.skipped, result.withheld) == ("infinite" in name, "judge" in name)
            assert (result.grad_norm is None) == ("infinite" in name)
            assert math.isfinite(result.loss) == ("loss" not in name)


def _nothing_counts() -> list[list[StepResult]]:
    """A step of which no token counts, and the next one, of both engines."""
    seen = []
    for case in (native(1, data=2, accumulation=2), Case(data=2, zero=1, accumulation=2)):
        started = start_engine(case)
        results = started.steps(0, 2)
        given = [replace(batch, loss_mask=torch.zeros_like(batch.loss_mask)) for batch in started.batches(2) or ()]
        results.append(started.engine.train_step(given, lr=0.02))
        seen.append([*results, started.step(3)])
    return seen


def test_a_step_of_which_no_token_counts_is_that_of_deepspeed() -> None:
    for results, theirs in world(2)["nothing counts"]:
        assert (results[2].loss, results[2].grad_norm, results[2].skipped) == (0.0, 0.0, False)
        assert [result.loss for result in results] == pytest.approx([result.loss for result in theirs], rel=5e-6)
        assert results[3].grad_norm == pytest.approx(theirs[3].grad_norm, rel=5e-6)


SPECIAL: dict[str, Callable[[], Any]] = {
    "nothing counts": _nothing_counts,
    "halves": _halves,
    "relay": _relay,
    "resumed": _resumed,
    "disturbed": _disturbed,
}


WITHOUT_DEEPSPEED = """
import sys
from megatron.training import pretrain  # all that training imports
from megatron.engine.build import build_engine
from megatron.initialize import join_world
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from tests.toy_model import TOY_CONFIG, ToyObjective, global_batch, toy_specs

args = NeoXArgs.from_dict({**TOY_CONFIG, "deepspeed": False, "train_micro_batch_size_per_gpu": 4})
world = join_world(args)
engine = build_engine(args, specs=toy_specs(tied=True), objective=ToyObjective(SINGLE), groups=world.groups, device="cpu")
print(engine.train_step([global_batch(0, 4)], lr=0.01).grad_norm > 0, "deepspeed" in sys.modules)
"""


def test_a_run_without_deepspeed_never_imports_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DEEPSPEED],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True False\n", done.stderr
