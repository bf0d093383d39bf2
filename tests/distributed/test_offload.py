"""Optimizer states in host memory: runs, norms and states are those of states on the device, and either goes on from the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch

from megatron.engine import zero_state
from megatron.engine.protocol import StepResult
from megatron.neox_arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.host_memory import peak_host_memory
from megatron.planning.memory.stage_memory import peak_memory
from tests.deepspeed_world import Case, Engines, Full, Pieces, assemble, own_pieces, start_engine
from tests.memory_census import SMALL, VOCABULARY, storages, trained_engine
from tests.worlds import run_world

STEPS = 3
PLANNED = [(stage, precision) for stage in (1, 2, 3) for precision in ("fp32", "bfloat16")]
STATIC = {"fp16": {"enabled": True, "loss_scale": 256}}
ON_HOST: dict[str, Any] = {"offload_optimizer": {"device": "cpu"}}
DIVIDE_ALL = {"stage3_param_persistence_threshold": 0, "sub_group_size": 300}
CASES = {
    "data 2, stage 1, tied": Case(data=2, zero=1, accumulation=4, tied=True),
    "data 2, stage 2, bf16": Case(data=2, zero=2, accumulation=4, precision="bfloat16"),
    "data 2, stage 2, fp16": Case(data=2, zero=2, accumulation=2, precision="fp16", overrides=STATIC),
    "data 2, stage 3": Case(data=2, zero=3, accumulation=2),
    "tensor 2, stage 2": Case(tensor=2, zero=2, tied=True),
    "pipe 2, tied": Case(pipe=2, zero=1, accumulation=4, tied=True),
    "pipe 2, bf16": Case(pipe=2, zero=1, accumulation=2, precision="bfloat16"),
    # The head has a stage to itself and so nothing that is not decayed: fewer parameter groups than the other stages.
    "pipe 4, uneven groups": Case(pipe=4, accumulation=4, tied=True, overrides={"pipe_partition_method": "uniform"}),
}


class Outcome(NamedTuple):
    """A run, its state, and how it goes on from there in the engine of the other kind."""

    results: list[StepResult]
    state: Pieces
    kinds: set[str]
    continued: list[StepResult]
    crossed: list[StepResult]


def _start(case: Case, section: dict[str, Any]) -> Engines:
    zero = {"stage": case.zero, **(DIVIDE_ALL if case.zero == 3 else {}), **section}
    return start_engine(replace(case, overrides={**case.overrides, "zero_optimization": zero}))


def _train(case: Case, section: dict[str, Any], other: dict[str, Any]) -> Outcome:
    first, second = _start(case, section), _start(case, other)
    results = first.steps(0, STEPS)
    state = own_pieces(first.engine, for_saving=True)
    inner = first.engine._optimizer.optimizer  # type: ignore[attr-defined]
    held = own_pieces(first.engine, for_saving=False)
    _copy(first, second)
    return Outcome(
        results,
        state,
        {type(inner).__name__, *(name.rpartition("/")[2] for name in held)},
        first.steps(STEPS, STEPS + 1),
        second.steps(STEPS, STEPS + 1),
    )


def _copy(source: Engines, target: Engines) -> None:
    """Each process has the same pieces in both."""
    state = source.engine.state_tensors()
    for name, full in target.engine.state_tensors().items():
        for into, piece in zip(full.pieces, state[name].pieces, strict=True):
            assert into.offsets == piece.offsets
            into.tensor.copy_(piece.tensor)
    target.engine.load_scalars(source.engine.state_scalars())
    target.engine.after_load()


def _train_all(rank: int, size: int) -> dict[str, tuple[Outcome, Outcome]]:
    return {
        name: (_train(case, {}, ON_HOST), _train(case, ON_HOST, {}))
        for name, case in CASES.items()
        if case.world_size == size
    }


@pytest.mark.parametrize("size", [2, 4])
def test_states_in_host_memory_change_nothing(size: int) -> None:
    of_ranks = run_world(size, _train_all, size)
    assert of_ranks[0]
    for name in of_ranks[0]:
        plain, moved = ([of_rank[name][kind] for of_rank in of_ranks] for kind in (0, 1))
        tolerance = 5e-6 if CASES[name].precision == "fp32" else 2e-3  # bf16 accumulates in another order
        _assert_same_steps(moved[0].results, plain[0].results, tolerance)
        for outcome in (*plain, *moved):
            _assert_same_steps(outcome.crossed, outcome.continued, tolerance)
            assert outcome.kinds == {"AdamW", "weight", "exp_avg", "exp_avg_sq"}
        expected, _ = assemble([outcome.state for outcome in plain])
        found, counts = assemble([outcome.state for outcome in moved])
        assert all(bool((count == 1).all()) for count in counts.values())
        _assert_close(found, expected, 1e-5 if CASES[name].precision == "fp32" else 1e-3)


def _count_in_host_memory(rank: int) -> dict[tuple[int, str], int]:
    counted = {}
    for stage, precision in PLANNED:
        engine: Any = trained_engine(_planned_arguments(stage, precision))
        optimizer = engine._optimizer
        assert optimizer.cpu_offload if stage < 3 else optimizer.offload_optimizer
        flats = [flat.values for flat in zero_state.flat_tensors(optimizer)]
        moments = [moment for flat in flats for moment in zero_state.moments(optimizer, flat).values()]
        gradients = [flat.grad for flat in flats if flat.grad is not None]
        if stage == 3:
            gradients.append(optimizer.grad_partitions_flat_buffer)
        on_their_way = getattr(optimizer, "param_buffer_of_bit16_for_cpu_offload_groups", [])
        counted[stage, precision] = sum(storages([*flats, *moments, *gradients, *on_their_way]).values())
    return counted


def _planned_arguments(stage: int, precision: str) -> NeoXArgs:
    # By the older spelling at stage 1.
    section = {"cpu_offload": True} if stage == 1 else ON_HOST
    return NeoXArgs.from_dict(
        {**SMALL, "global_num_gpus": 2, "precision": precision, "zero_optimization": {"stage": stage, **section}}
    )


def test_the_plan_finds_optimizer_states_in_host_memory() -> None:
    for counted in run_world(2, _count_in_host_memory):
        for (stage, precision), measured in counted.items():
            args = _planned_arguments(stage, precision)
            layout = Layout.of(args)
            assert peak_memory(args, layout, vocab_size=VOCABULARY).optimizer == 0
            assert peak_host_memory(args, layout, vocab_size=VOCABULARY) == pytest.approx(measured, rel=0.01)


def _assert_same_steps(found: list[StepResult], expected: list[StepResult], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=tolerance)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=tolerance)
        assert not one.skipped


def _assert_close(found: Full, expected: Full, tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance, msg=f"{name}")
