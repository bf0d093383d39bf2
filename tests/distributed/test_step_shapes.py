"""Steps of different batches and sequence lengths in every kind of layout against plain torch on one process."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import nn

from megatron.data.batch import Batch
from megatron.data.cut_sequence import cut_sequence
from megatron.engine.protocol import Engine, StepResult, StepShape
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE
from megatron.optim.build import build_optimizer
from megatron.optim.lr_schedules import learning_rate
from tests.deepspeed_world import ROWS, Case, Engines, start_engine
from tests.toy_model import SEQUENCE, ToyObjective, global_batch, micro_batches
from tests.worlds import run_world

BATCHES = (2, 2, 4, 6, 8, 8)
LENGTHS = (2, 4, 4, 6, 6, SEQUENCE)
EVALUATED = 2
"""Before this step, while batches and sequences are short, there is an evaluation, with the full ones."""

RESUMED = 3
DIVIDE_ALL = {"stage": 3, "stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 100}
LAYOUTS = {
    "data 2, stage 1": Case(data=2, accumulation=4, zero=1),
    "data 2, without DeepSpeed": Case(data=2, accumulation=4, zero=1, tied=True, overrides={"deepspeed": False}),
    "data 2, stage 2": Case(data=2, accumulation=4, zero=2, tied=True),
    "data 2, stage 3": Case(data=2, accumulation=4, zero=3, overrides={"zero_optimization": DIVIDE_ALL}),
    "pipe 2, tied": Case(pipe=2, accumulation=4, tied=True),
    "pipe 1 x data 2": Case(pipe=1, data=2, accumulation=4),
    "tensor 2 in sequence": Case(tensor=2, accumulation=4, gpt=True, overrides={"sequence_parallel": True}),
    "context 2": Case(context=2, accumulation=4, gpt=True),
    "pipe 2 of a gpt": Case(pipe=2, accumulation=4, gpt=True, overrides={"checkpoint_activations": True}),
}


class Outcome(NamedTuple):
    """What a rank saw: all steps, an evaluation on the way, and the last steps once more by an engine given the state before."""

    results: list[StepResult]
    evaluation: tuple[float, float]
    resumed: list[StepResult]


def short_batch(step: int) -> Batch:
    """The samples of a step, the first tokens of each."""
    batch = global_batch(step, BATCHES[step])
    return Batch(**{name: value[:, : LENGTHS[step]] for name, value in vars(batch).items() if value is not None})


def take_step(running: Engines, step: int) -> StepResult:
    """Step number `step` in the layout of the engine."""
    data = running.groups.data
    row = running.args.train_micro_batch_size_per_gpu * data.size
    shape = StepShape(BATCHES[step] // row, LENGTHS[step])
    whole = micro_batches(short_batch(step), count=shape.micro_batches, rank=data.rank, ranks=data.size)
    batches = [cut_sequence(batch, running.groups.context) for batch in whole]
    return running.engine.train_step(
        batches if running.engine.reads_data else None, lr=learning_rate(running.args, step), shape=shape
    )


def train_and_resume(rank: int) -> list[Outcome]:
    outcomes = []
    for case in LAYOUTS.values():
        running, second = start_engine(case), start_engine(case)
        results = []
        for step in range(len(BATCHES)):
            if step == EVALUATED:
                evaluation = running.engine.evaluate_step(running.batches(99))
            if step == RESUMED:
                copy_state(running.engine, second.engine)
            results.append(take_step(running, step))
        outcomes.append(
            Outcome(results, evaluation, [take_step(second, step) for step in range(RESUMED, len(BATCHES))])
        )
    return outcomes


def copy_state(source: Engine, target: Engine) -> None:
    """Every process's pieces to the same process of the other engine."""
    state = source.state_tensors()
    for name, full in target.state_tensors().items():
        for mine, theirs in zip(full.pieces, state[name].pieces, strict=True):
            mine.tensor.copy_(theirs.tensor)
    target.load_scalars(source.state_scalars())
    target.after_load()


@cache
def outcomes() -> dict[str, list[Outcome]]:
    of_ranks = run_world(2, train_and_resume)
    return {name: [of_rank[index] for of_rank in of_ranks] for index, name in enumerate(LAYOUTS)}


def plain_run(case: Case) -> tuple[list[float], tuple[float, float]]:
    """The losses of all steps and the evaluation in plain torch: each batch at once, on one process."""
    args, objective = case.arguments(), ToyObjective(SINGLE)
    model = SequentialModel(case.specs(), BuildContext(), seed=args.seed)
    optimizer = build_optimizer(args, model.parameters())
    losses = []
    for step in range(len(BATCHES)):
        if step == EVALUATED:
            held_out = global_batch(99, ROWS)
            with torch.no_grad():
                loss = objective.loss_sum(model(held_out.tokens, held_out.position_ids), held_out)
            evaluation = float(loss), float(objective.weight(held_out))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args, step)
        batch = short_batch(step)
        loss = objective.loss_sum(model(batch.tokens, batch.position_ids), batch) / objective.weight(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), args.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, evaluation


@pytest.mark.parametrize("name", LAYOUTS)
def test_steps_of_any_shape_equal_plain_torch(name: str) -> None:
    losses, evaluation = plain_run(LAYOUTS[name])
    for each in outcomes()[name]:
        assert [result.loss for result in each.results] == pytest.approx(losses, rel=1e-5)
        assert each.evaluation == pytest.approx(evaluation, rel=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_resuming_between_shapes_is_exact_to_the_bit(name: str) -> None:
    for each in outcomes()[name]:
        assert each.resumed == each.results[RESUMED:]
