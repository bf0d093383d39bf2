"""The engines go on from the state of plain torch on one process, in layouts of every kind; half precisions; what must not go unnoticed.

That a run from the beginning is the same in every layout is the subject of `tests/distributed/matrix`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import pytest
import torch

from megatron.engine.protocol import StepResult
from tests.deepspeed_world import (
    CLIPPING,
    DIVIDE_ALL,
    Case,
    Engines,
    Full,
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

STEPS = 4  # of plain torch, whose state an engine is then given, and as many again of both

SMALL_BUCKETS = {"reduce_bucket_size": 500, "allgather_bucket_size": 500, "contiguous_gradients": True}
RECOMPUTE = {"checkpoint_activations": True, "checkpoint_num_layers": 2}
GPT_J = {"gpt_j_residual": True, "pos_emb": "rotary", "rotary_pct": 0.5}

LAYOUTS = {
    "one process, 4 micro-batches, tied": Case(accumulation=4, tied=True),
    "one process, stage 3, tied": Case(zero=3, tied=True, overrides={"zero_optimization": DIVIDE_ALL}),
    "pipeline of one stage, tied": Case(pipe=1, accumulation=4, tied=True, overrides=RECOMPUTE),
    "data 2, stage 1, small buckets": Case(data=2, zero=1, overrides={"zero_optimization": {"stage": 1, **SMALL_BUCKETS}}),
    "data 2, stage 2, overlapping": Case(
        data=2,
        zero=2,
        accumulation=2,
        overrides={"zero_optimization": {"stage": 2, "overlap_comm": True, "round_robin_gradients": True, **SMALL_BUCKETS}},
    ),
    "data 2, stage 3, recomputing": Case(
        data=2, zero=3, accumulation=4, tied=True, overrides={"zero_optimization": DIVIDE_ALL, **RECOMPUTE}
    ),
    "tensor 2, stage 3, tied": Case(tensor=2, zero=3, tied=True, overrides={"zero_optimization": DIVIDE_ALL}),
    "pipe 2, tied": Case(pipe=2, accumulation=4, tied=True, overrides=RECOMPUTE),
    "pipe 2 by parameters": Case(pipe=2, accumulation=2, overrides={"pipe_partition_method": "parameters"}),
    "pipe 2 x tensor 2, tied": Case(pipe=2, tensor=2, accumulation=4, tied=True),
    "data 2 x tensor 2, stage 2": Case(data=2, tensor=2, zero=2, accumulation=2),
    "data 2 x tensor 2, stage 3": Case(data=2, tensor=2, zero=3, overrides={"zero_optimization": DIVIDE_ALL}),
    # The head has a stage to itself and so nothing that is not decayed: fewer parameter groups than the other stages.
    "pipe 4, tied, uneven groups": Case(pipe=4, accumulation=4, tied=True, overrides={"pipe_partition_method": "uniform"}),
    "gpt, pipe 2 x tensor 2, tied": Case(pipe=2, tensor=2, accumulation=2, tied=True, gpt=True),
    "gpt-j in sequence, pipe 2 x tensor 2": Case(
        pipe=2, tensor=2, accumulation=2, gpt=True, overrides={**GPT_J, **RECOMPUTE, "sequence_parallel": True}
    ),
}  # fmt: skip


class Outcome(NamedTuple):
    """What one rank saw of a case."""

    resumed: list[StepResult]
    saved: Pieces
    held: Pieces
    scalars: dict[str, float | int]
    evaluation: tuple[float, float]


@cache
def plain(name: str) -> Reference:
    return reference_run(LAYOUTS[name], 2 * STEPS)


@cache
def outcomes(size: int) -> dict[str, list[Outcome]]:
    """The outcomes, rank by rank, of every layout of `size` processes: one world serves them all."""
    names = [name for name, case in LAYOUTS.items() if case.world_size == size]
    of_ranks = run_world(size, _resume, names, [plain(name).states[STEPS - 1] for name in names])
    return {name: [of_rank[index] for of_rank in of_ranks] for index, name in enumerate(names)}


def outcome(name: str) -> list[Outcome]:
    return outcomes(LAYOUTS[name].world_size)[name]


def _resume(rank: int, names: list[str], states: list[Full]) -> list[Outcome]:
    collected = []
    for name, state in zip(names, states, strict=True):
        started = start_engine(LAYOUTS[name])
        fill_state(started.engine, state, {"optimizer_step": STEPS})
        resumed = started.steps(STEPS, 2 * STEPS)
        collected.append(
            Outcome(
                resumed,
                own_pieces(started.engine, for_saving=True),
                own_pieces(started.engine, for_saving=False),
                started.engine.state_scalars(),
                started.engine.evaluate_step(started.batches(2 * STEPS)),
            )
        )
    return collected


def test_the_reference_is_clipped_in_every_step() -> None:
    assert all(norm > 1.5 * CLIPPING for name in LAYOUTS for norm in plain(name).norms)


@pytest.mark.parametrize("name", LAYOUTS)
def test_saved_pieces_give_every_weight_and_moment_exactly_once(name: str) -> None:
    saved, counts = assemble([each.saved for each in outcome(name)])
    assert all(bool((count == 1).all()) for count in counts.values())
    assert_close(saved, plain(name).states[-1])
    assert all(each.scalars == {"optimizer_step": 2 * STEPS} for each in outcome(name))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_run_resumed_from_another_layout_equals_the_unbroken_run(name: str) -> None:
    of_ranks, reference = outcome(name), plain(name)
    assert [result.loss for result in of_ranks[0].resumed] == pytest.approx(reference.losses[STEPS:], rel=2e-6)
    assert [result.grad_norm for result in of_ranks[0].resumed] == pytest.approx(reference.norms[STEPS:], rel=5e-6)
    assert not any(result.skipped for result in of_ranks[0].resumed)
    assert all(each.resumed == of_ranks[0].resumed for each in of_ranks)
    held, _ = assemble([each.held for each in of_ranks])
    assert_close(held, reference.states[-1])
    assert all(each.evaluation == pytest.approx(reference.evaluation, rel=2e-6) for each in of_ranks)
    assert all(each.evaluation == of_ranks[0].evaluation for each in of_ranks)


# Half precisions, on two processes each.

STATIC = {"fp16": {"enabled": True, "loss_scale": 256}}
OVERFLOWING = {"fp16": {"enabled": True, "initial_scale_power": 40, "hysteresis": 1}}
RAISED_EVERY_SECOND_STEP = {"fp16": {"enabled": True, "initial_scale_power": 8, "loss_scale_window": 1}}
HALVES = {
    "bf16, pipe 2, tied": Case(pipe=2, accumulation=4, tied=True, precision="bfloat16"),
    "bf16, data 2, stage 3": Case(data=2, zero=3, precision="bfloat16", overrides={"zero_optimization": DIVIDE_ALL}),
    "bf16, tensor 2, stage 2": Case(tensor=2, zero=2, accumulation=4, tied=True, precision="bfloat16"),
    "bf16, context 2": Case(context=2, accumulation=4, precision="bfloat16"),
    "fp16, pipe 2, tied": Case(pipe=2, accumulation=4, tied=True, precision="fp16", overrides=STATIC),
    "fp16, data 2, stage 3": Case(
        data=2, zero=3, precision="fp16", overrides={"zero_optimization": DIVIDE_ALL, **STATIC}
    ),
    "fp16, tensor 2": Case(tensor=2, accumulation=4, tied=True, precision="fp16", overrides=STATIC),
}


class HalfOutcome(NamedTuple):
    """What one rank saw of a case in half precision: a run, and its continuation by a second engine given the first one's state."""

    results: list[StepResult]
    continued: list[StepResult]
    resumed: list[StepResult]
    saved: Pieces


@cache
def half_outcomes() -> dict[str, list[HalfOutcome]]:
    of_ranks = run_world(2, _train_halves)
    return {name: [of_rank[index] for of_rank in of_ranks] for index, name in enumerate(HALVES)}


def _train_halves(rank: int) -> list[HalfOutcome]:
    collected = []
    for case in HALVES.values():
        first, second = start_engine(case), start_engine(case)
        results = first.steps(0, STEPS)
        saved = own_pieces(first.engine, for_saving=True)
        _copy_state(first, second)
        collected.append(HalfOutcome(results, first.steps(STEPS, STEPS + 2), second.steps(STEPS, STEPS + 2), saved))
    return collected


def _copy_state(source: Engines, target: Engines) -> None:
    """Every process's pieces to the same process of the other engine."""
    state = source.engine.state_tensors()
    for name, full in target.engine.state_tensors().items():
        for mine, theirs in zip(full.pieces, state[name].pieces, strict=True):
            mine.tensor.copy_(theirs.tensor)
    target.engine.load_scalars(source.engine.state_scalars())
    target.engine.after_load()


@pytest.mark.parametrize("name", HALVES)
def test_half_precision_stays_near_plain_fp32(name: str) -> None:
    reference = reference_run(HALVES[name], STEPS)
    tolerance = 3e-3 if "bf16" in name else 1e-3
    for each in half_outcomes()[name]:
        assert [result.loss for result in each.results] == pytest.approx(reference.losses, rel=tolerance)
        assert [result.grad_norm for result in each.results] == pytest.approx(reference.norms, rel=10 * tolerance)
    saved, _ = assemble([each.saved for each in half_outcomes()[name]])
    for key, tensor in reference.states[-1].items():
        if key.endswith("exp_avg"):
            assert float((saved[key] - tensor).norm() / tensor.norm()) < 20 * tolerance, key


@pytest.mark.parametrize("name", HALVES)
def test_resuming_in_the_same_layout_is_exact_to_the_bit(name: str) -> None:
    for each in half_outcomes()[name]:
        assert each.resumed == each.continued


@cache
def fp16_specials() -> Any:
    return run_world(2, _fp16_specials)


def _fp16_specials(rank: int) -> Any:
    overflowing = start_engine(Case(pipe=2, accumulation=2, tied=True, precision="fp16", overrides=OVERFLOWING))
    before = own_pieces(overflowing.engine, for_saving=False)
    skipped = overflowing.steps(0, 2)
    after, scalars = own_pieces(overflowing.engine, for_saving=False), overflowing.engine.state_scalars()
    moments = []
    for scale in (STATIC, RAISED_EVERY_SECOND_STEP):
        case = Case(data=2, zero=2, precision="fp16", overrides={**scale, "gradient_clipping": 0.0})
        trained = start_engine(case)
        scales = [result.loss_scale for result in trained.steps(0, 3)]
        moments.append((own_pieces(trained.engine, for_saving=True), scales))
    return skipped, before, after, scalars, moments


def test_an_fp16_overflow_skips_the_step_and_halves_the_loss_scale() -> None:
    for skipped, before, after, scalars, _ in fp16_specials():
        assert [result.skipped for result in skipped] == [True, True]
        assert [result.loss_scale for result in skipped] == [2.0**39, 2.0**38]
        assert [result.grad_norm for result in skipped] == [None, None]
        assert scalars["optimizer_step"] == 0
        unchanged, changed = assemble([before])[0], assemble([after])[0]
        assert all(torch.equal(changed[name].nan_to_num(), unchanged[name].nan_to_num()) for name in unchanged)


def test_raising_the_loss_scale_does_not_change_the_step_that_raises_it() -> None:
    of_ranks = fp16_specials()
    static, raised = (assemble([each[4][index][0] for each in of_ranks])[0] for index in (0, 1))
    assert of_ranks[0][4][1][1] == [256.0, 512.0, 1024.0]
    for name, tensor in static.items():
        if name.endswith("exp_avg"):
            assert float((raised[name] - tensor).norm() / tensor.norm()) < 0.02, name


# What must not go unnoticed.


def _norm_without_marks(rank: int) -> float | None:
    broken = start_engine(Case(tensor=2, zero=3))
    for parameter in broken.engine.library_engine.module.parameters():  # type: ignore[attr-defined]
        parameter.model_parallel = parameter.tensor_model_parallel = False
    return broken.step(0).grad_norm


def test_a_tensor_parallel_parameter_without_its_mark_is_missing_in_the_norm() -> None:
    norm = run_world(2, _norm_without_marks)[0]
    assert abs(norm / reference_run(Case(), 1).norms[0] - 1) > 1e-2


def _feed_too_few(rank: int) -> list[str]:
    messages = []
    for case in (Case(accumulation=2), Case(pipe=1, accumulation=2)):
        started = start_engine(case)
        batches = started.batches(0) or []
        for call in (lambda b, e=started.engine: e.train_step(b, lr=0.1), started.engine.evaluate_step):
            with pytest.raises(ValueError) as raised:
                call(batches[:1])
            messages.append(str(raised.value))
    return messages


def test_a_wrong_number_of_micro_batches_is_refused() -> None:
    for message in run_world(1, _feed_too_few)[0]:
        assert message == "this rank must be given 2 micro-batches, not 1"


def _build_and_step(rank: int) -> None:
    for case in (Case(pipe=2, accumulation=2, precision="bfloat16"), Case(data=2, zero=3), Case(tensor=2)):
        started = start_engine(case)
        started.step(0)
        started.engine.evaluate_step(started.batches(1))
        fill_state(started.engine, assemble([own_pieces(started.engine, for_saving=False)])[0], {})


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    run_world(2, _build_and_step)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
