"""Checkpoints with optimizer state that DeepSpeed wrote as GPT-NeoX has it write them: read to the bit, and gone on from as if nothing had been."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist

from megatron.conversion.legacy.optimizer.source import NeoXState
from megatron.conversion.legacy.source import NeoXSource
from megatron.conversion.loading import load_into_engine
from megatron.engine.protocol import StepResult
from megatron.mpu.groups import build_process_groups
from megatron.mpu.topology import Topology
from tests.deepspeed_world import ROWS, Case, Pieces, assemble, own_pieces, start_engine
from tests.toy_model import SEQUENCE, VOCABULARY
from tests.unit.conversion.legacy.deepspeed_checkpoints import WithoutZero, save_library_engine, save_like_neox
from tests.worlds import error_of, run_world

STEPS, MORE = 3, 2

LLAMA = {"mlp_type": "llama", "activation": "swiglu", "norm": "rmsnorm", "num_kv_heads": 2, "num_attention_heads": 4}
# The first steps overflow, and are skipped.
OVERFLOWING = {"fp16": {"enabled": True, "initial_scale_power": 18, "hysteresis": 1, "loss_scale_window": 2}}
ROUND_ROBIN = {"zero_optimization": {"stage": 2, "round_robin_gradients": True}}
CASES = {
    "stage 1, data 2 x tensor 2": Case(data=2, tensor=2, zero=1, gpt=True),
    "stage 2, data 4, round robin": Case(data=4, zero=2, gpt=True, overrides=ROUND_ROBIN),
    "bf16 optimizer, pipe 2 x tensor 2, tied": Case(pipe=2, tensor=2, accumulation=2, gpt=True, tied=True, precision="bfloat16"),
    "fp16, pipe 2 x data 2, overflows": Case(pipe=2, data=2, accumulation=2, gpt=True, precision="fp16", overrides=OVERFLOWING),
    "pipe 4, tied, a head alone": Case(pipe=4, accumulation=4, gpt=True, tied=True, overrides={"pipe_partition_method": "uniform"}),
    "gated, grouped, bf16, stage 2": Case(data=2, tensor=2, zero=2, gpt=True, precision="bfloat16", overrides=LLAMA),
}  # fmt: skip
WITHOUT_ZERO = {
    "fp32 without ZeRO": Case(data=2, tensor=2, gpt=True),
    "fp16 without ZeRO": Case(data=2, tensor=2, gpt=True, precision="fp16"),
}
# Where else a run in fp32 goes on.
ELSEWHERE = {
    "stage 1, data 2 x tensor 2": Case(pipe=2, data=2, accumulation=2, gpt=True),
    "stage 2, data 4, round robin": Case(pipe=2, tensor=2, accumulation=2, gpt=True),
    "pipe 4, tied, a head alone": Case(data=4, zero=3, gpt=True, tied=True),
    "fp32 without ZeRO": Case(pipe=4, accumulation=4, gpt=True),
}


class Outcome(NamedTuple):
    """What one rank saw of a case: what it held when it saved, the losses after that, and what engines did that were given the files."""

    saved: Pieces
    scalars: dict[str, float | int]
    skipped: int
    unbroken: list[Any]
    resumed: list[StepResult]
    elsewhere: list[StepResult]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("neox")


@cache
def outcomes(directory: Path) -> dict[str, list[Outcome]]:
    """Of all cases, rank by rank: one world serves them all."""
    of_ranks = run_world(4, _train_and_resume, directory)
    return {name: [of_rank[name] for of_rank in of_ranks] for name in of_ranks[0]}


def _train_and_resume(rank: int, directory: Path) -> dict[str, Outcome]:
    outcomes = {name: _with_zero(name, case, directory / name) for name, case in CASES.items()}
    return outcomes | {name: _without_zero(name, case, directory / name) for name, case in WITHOUT_ZERO.items()}


def _with_zero(name: str, case: Case, directory: Path) -> Outcome:
    started = start_engine(case)
    results = started.steps(0, STEPS)
    saved = own_pieces(started.engine, for_saving=True), started.engine.state_scalars()
    save_like_neox(started, directory, iteration=STEPS)
    dist.barrier()
    return Outcome(
        *saved,
        sum(result.skipped for result in results),
        started.steps(STEPS, STEPS + MORE),
        _resume(case, directory),
        _resume(ELSEWHERE[name], directory) if name in ELSEWHERE else [],
    )


def _without_zero(name: str, case: Case, directory: Path) -> Outcome:
    groups = build_process_groups(Topology(data=case.data, tensor=case.tensor))
    plain = WithoutZero(case, groups)
    for number in range(STEPS):
        plain.step(number)
    pieces, scalars = plain.pieces(), plain.scalars()
    save_library_engine(plain.library, directory, iteration=STEPS, groups=groups)
    dist.barrier()
    losses = [plain.step(number) for number in range(STEPS, STEPS + MORE)]
    elsewhere = _resume(ELSEWHERE[name], directory) if name in ELSEWHERE else []
    return Outcome(pieces, scalars, 0, losses, _resume(case, directory), elsewhere)


def _resume(case: Case, directory: Path) -> list[StepResult]:
    started = start_engine(replace(case, overrides={**case.overrides, "load": str(directory)}))
    run_state = load_into_engine(started.args, started.engine, vocab_size=VOCABULARY)
    assert run_state["iteration"] == STEPS
    return started.steps(STEPS, STEPS + MORE)


def open_state(case: Case, directory: Path) -> NeoXState:
    args = case.arguments()
    return NeoXState(NeoXSource(directory, args, vocab_rows=VOCABULARY), args)


@pytest.mark.parametrize("name", [*CASES, *WITHOUT_ZERO])
def test_every_weight_and_moment_is_read_to_the_bit(name: str, directory: Path) -> None:
    case = {**CASES, **WITHOUT_ZERO}[name]
    expected, _ = assemble([each.saved for each in outcomes(directory)[name]])
    source = open_state(case, directory / name)
    assert source.shapes == {key: tuple(value.shape) for key, value in expected.items()}
    for key, value in expected.items():
        assert torch.equal(source.read(key), value), key


@pytest.mark.parametrize("name", [*CASES, *WITHOUT_ZERO])
def test_counters_and_scalars_are_those_of_the_run(name: str, directory: Path) -> None:
    case, found = {**CASES, **WITHOUT_ZERO}[name], outcomes(directory)[name][0]
    source = open_state(case, directory / name)
    assert source.scalars == found.scalars
    samples = STEPS * ROWS
    assert source.run_state == {
        "iteration": STEPS,
        "consumed_samples": samples,
        "consumed_tokens": samples * SEQUENCE,
        "skipped_iterations": found.skipped,
    }
    # DeepSpeed makes a step with gradients of zero before the first one here, which counts.
    assert source.scalars["optimizer_step"] == STEPS - found.skipped + (name == "fp16 without ZeRO")


def test_a_step_was_skipped_where_one_should_be(directory: Path) -> None:
    found = outcomes(directory)["fp16, pipe 2 x data 2, overflows"][0]
    assert 0 < found.skipped < STEPS
    assert found.scalars["loss_scale_last_overflow"] >= 0


@pytest.mark.parametrize("name", CASES)
def test_in_the_same_layout_the_run_goes_on_to_the_bit(name: str, directory: Path) -> None:
    for each in outcomes(directory)[name]:
        assert each.resumed == each.unbroken
        assert len(each.resumed) == MORE


@pytest.mark.parametrize("name", ELSEWHERE)
def test_in_another_layout_the_run_goes_on_but_for_rounding(name: str, directory: Path) -> None:
    for each in outcomes(directory)[name]:
        expected = [getattr(step, "loss", step) for step in each.unbroken]
        assert [step.loss for step in each.elsewhere] == pytest.approx(expected, rel=2e-6)


def test_a_run_without_zero_goes_on_with_it(directory: Path) -> None:
    """In fp32; in fp16 DeepSpeed's `FP16_Optimizer` divides gradients by the loss scale once too often with an optimizer of torch."""
    for each in outcomes(directory)["fp32 without ZeRO"]:
        assert [step.loss for step in each.resumed] == pytest.approx(each.unbroken, rel=2e-6)


def test_a_missing_stage_is_told_by_its_parameters(directory: Path, tmp_path: Path) -> None:
    name = "bf16 optimizer, pipe 2 x tensor 2, tied"
    outcomes(directory)
    shutil.copytree(directory / name, tmp_path / name)
    for rank in (2, 3):
        for path in tmp_path.rglob(f"*mp_rank_{rank:02d}_*"):
            path.unlink()
    message = error_of(lambda: open_state(CASES[name], tmp_path / name))
    assert "is not whole: it has none of 4.input_layernorm.weight, " in message
    assert message.endswith("(no_load_optim: true, or finetune: true to begin a new run with them)")
