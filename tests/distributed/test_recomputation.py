"""Where the inputs of recomputed blocks are kept changes no number; what it does to memory is measured in test_memory.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron.data.batch import Batch
from megatron.engine.protocol import StepResult
from megatron.model.kept_inputs import KeptInputs
from megatron.mpu.groups import Group
from megatron.mpu.random_bits import sample_keys
from megatron.optim.lr_schedules import learning_rate
from tests.deepspeed_world import Case, Pieces, own_pieces, start_engine
from tests.worlds import run_world

STEPS = 2
RECOMPUTE = {"checkpoint_activations": True, "checkpoint_num_layers": 2}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
WAYS: dict[str, dict[str, Any]] = {
    "divided": {"partition_activations": True},
    "divided, on the host": {"partition_activations": True, "checkpoint_in_cpu": True},
}
LAYOUTS = {
    "tensor 2": Case(tensor=2, gpt=True, overrides={**RECOMPUTE, **DROPOUT}),
    "tensor 2, in sequence": Case(tensor=2, gpt=True, overrides={**RECOMPUTE, "sequence_parallel": True}),
    "pipe 2 x tensor 2": Case(pipe=2, tensor=2, accumulation=4, gpt=True, overrides={**RECOMPUTE, **DROPOUT}),
    "data 2 x tensor 2, stage 3": Case(data=2, tensor=2, zero=3, gpt=True, precision="bfloat16", overrides=RECOMPUTE),
}
Outcome = tuple[list[StepResult], dict[str, Any]]


def _train(case: Case) -> Outcome:
    started = start_engine(case)
    results = [
        started.engine.train_step(_with_keys(started.batches(step)), lr=learning_rate(started.args, step))
        for step in range(STEPS)
    ]
    return results, _as_bytes(own_pieces(started.engine, for_saving=False))


def _with_keys(batches: list[Batch] | None) -> list[Batch] | None:
    """The batches with what their masks of dropout follow from."""
    if batches is None:
        return None
    return [replace(batch, dropout_keys=sample_keys(range(len(batch.tokens)), seed=1, step=0)) for batch in batches]


def _as_bytes(pieces: Pieces) -> dict[str, Any]:
    return {name: [(place, values.tobytes()) for place, values in parts] for name, (_, parts) in pieces.items()}


def _train_all(rank: int, size: int) -> dict[str, list[Outcome]]:
    return {
        name: [_train(replace(case, overrides={**case.overrides, **way})) for way in ({}, *WAYS.values())]
        for name, case in LAYOUTS.items()
        if case.world_size == size
    }


@pytest.mark.parametrize("size", [2, 4])
def test_the_way_inputs_are_kept_changes_no_bit(size: int) -> None:
    """Losses, norms, weights and moments after a few steps, on every rank."""
    for of_rank in run_world(size, _train_all, size):
        assert len(of_rank) == 2
        for name, (plain, *others) in of_rank.items():
            for way, outcome in zip(WAYS, others, strict=True):
                assert outcome == plain, (name, way)


def _keep_uneven_inputs(rank: int) -> dict[str, Any]:
    """Of 7 elements on 4 ranks, one keeps a single one and a zero."""
    size = dist.get_world_size()
    kept = KeptInputs(Group(rank, size, tuple(range(size)), dist.group.WORLD))
    x = torch.arange(1.0, 8.0, dtype=torch.float64).reshape(7, 1).requires_grad_()
    numbers = torch.arange(7)
    with kept.hooks():
        squares = x.square()
        picked = squares[numbers]
    picked.sum().backward()
    assert x.grad is not None
    own = kept._keep(x)
    assert not isinstance(own, torch.Tensor)
    return {"gradient": x.grad.flatten().tolist(), "part": own.part.tolist()}


def test_inputs_that_do_not_divide_are_whole_again_in_the_backward_pass() -> None:
    reports = run_world(4, _keep_uneven_inputs)
    assert [report["part"] for report in reports] == [[1, 2], [3, 4], [5, 6], [7, 0]]
    assert all(report["gradient"] == [2, 4, 6, 8, 10, 12, 14] for report in reports)
