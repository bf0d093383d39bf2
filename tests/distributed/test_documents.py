"""Packed documents that are kept apart are the documents alone on any number of ranks: tensor and sequence parallel, in a pipeline."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from megatron.data.batch import Batch
from megatron.data.cut_sequence import cut_sequence
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE
from megatron.mpu.shard import shard_of
from megatron.optim.build import build_optimizer
from megatron.optim.lr_schedules import learning_rate
from tests.deepspeed_world import ROWS, Case, Full, assemble, own_pieces, start_engine
from tests.distributed.test_model import build, with_padding_of, world_group
from tests.toy_model import SEQUENCE, ToyObjective, micro_batches
from tests.unit.model.builders import VARIANTS, parameters_by_name
from tests.unit.model.packed import ALONE, TOGETHER, documents_of, gradients_of, packed
from tests.worlds import run_world

SPLIT = ("gpt2", "llama", "sliding window, llama3 scaling, biases of queries, keys and values")


def test_tensor_parallel_ranks_keep_documents_apart() -> None:
    for report in run_world(2, compare_with_documents_alone):
        assert len(report) == 2 * len(SPLIT)
        for case, (apart, together) in report.items():
            assert apart < 1e-10, case
            assert together > 1e-2, case


def compare_with_documents_alone(rank: int) -> dict[str, tuple[float, float]]:
    """Largest errors of loss and gradients against the documents alone on one process: kept apart, and not."""
    group = world_group()
    report = {}
    for name in SPLIT:
        one_process = build(VARIANTS[name], SINGLE)
        loss, expected = gradients_of(one_process, list(documents_of(packed(ALONE))))
        infos = {parameter: shard_of(value) for parameter, value in parameters_by_name(one_process).items()}
        for sequence_parallel in (False, True):
            model = build(VARIANTS[name], group, sequence_parallel=sequence_parallel)
            errors = []
            for rules in (ALONE, TOGETHER):
                found_loss, found = gradients_of(model, [packed(rules)], group)
                own = {parameter: shard_of(value) for parameter, value in parameters_by_name(model).items()}
                gradients = [
                    gradient - own[key].cut(with_padding_of(expected[key], infos[key], own[key]))
                    for key, gradient in found.items()
                ]
                errors.append(max(float(error.abs().max()) for error in (*gradients, found_loss - loss)))
            report[f"{name}, sequence parallel {sequence_parallel}"] = (errors[0], errors[1])
    return report


LLAMA = {
    "norm": "rmsnorm",
    "pos_emb": "rotary",
    "activation": "swiglu",
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "mlp_multiple_of": 8,
    "attention_config": [[["flash", "global"], "all"]],
}
RECOMPUTE = {"checkpoint_activations": True}
PIPELINES = {
    "learned, pipe 2": Case(pipe=2, accumulation=4, gpt=True),
    "learned, pipe 2, recomputing": Case(pipe=2, accumulation=2, gpt=True, tied=True, overrides=RECOMPUTE),
    "grouped and rotary, pipe 2 x tensor 2 in sequence": Case(
        pipe=2, tensor=2, accumulation=2, gpt=True, overrides={**LLAMA, "sequence_parallel": True}
    ),
    "grouped and rotary, data 2": Case(data=2, gpt=True, overrides=LLAMA),
    "grouped and rotary, pipe 2 x context 2": Case(
        pipe=2, context=2, accumulation=2, gpt=True, overrides={**LLAMA, **RECOMPUTE}
    ),
    "grouped and rotary, pipe 4": Case(pipe=4, accumulation=4, gpt=True, overrides={**LLAMA, **RECOMPUTE}),
}


@cache
def outcomes() -> dict[str, Any]:
    """What the ranks of each layout return."""
    return {name: run_world(case.world_size, train_and_evaluate, case) for name, case in PIPELINES.items()}


def train_and_evaluate(rank: int, case: Case) -> Any:
    """The evaluation of packed samples before and after one step on them, the step's results and the state it leaves."""
    started = start_engine(case)
    data = started.groups.data

    def batches(batch: Batch) -> list[Batch] | None:
        if not started.engine.reads_data:
            return None
        whole = micro_batches(batch, count=case.accumulation, rank=data.rank, ranks=data.size)
        return [cut_sequence(each, started.groups.context) for each in whole]

    # As one document a row: a pipeline sends the same tensors all the time, so a run has documents always or never.
    one_each = global_packed(TOGETHER)
    together = started.engine.evaluate_step(
        batches(replace(one_each, document_ids=torch.zeros_like(one_each.tokens, dtype=torch.int32)))
    )
    before = started.engine.evaluate_step(batches(global_packed(ALONE)))
    step = started.engine.train_step(batches(global_packed(ALONE)), lr=learning_rate(started.args, 0))
    return together, before, (step.loss, step.grad_norm), own_pieces(started.engine, for_saving=True)


def global_packed(rules: Any) -> Batch:
    return packed(rules, rows=ROWS, length=SEQUENCE)


def documents_alone(case: Case) -> tuple[float, float, float, Full]:
    """(loss sum, weight, gradient norm, clipped gradients as the first moments) of plain torch, one document after the other."""
    args = case.arguments()
    model = SequentialModel(case.specs(), BuildContext(), seed=args.seed)
    optimizer = build_optimizer(args, model.parameters())
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(args, 0)
    objective = ToyObjective(SINGLE)
    documents = list(documents_of(global_packed(ALONE)))
    weight = sum(float(objective.weight(document)) for document in documents)
    losses: list[Tensor] = []
    for document in documents:
        loss = objective.loss_sum(model(document.tokens, document.position_ids), document)
        (loss / weight).backward()
        losses.append(loss.detach())
    norm = nn.utils.clip_grad_norm_(model.parameters(), args.gradient_clipping).item()
    optimizer.step()
    moments = {}
    for parameter in model.parameters():
        info = shard_of(parameter)
        moments[f"{info.name}/exp_avg"] = optimizer.state[parameter]["exp_avg"][: info.valid_rows]
    return float(torch.stack(losses).sum()), weight, norm, moments


@pytest.mark.parametrize("name", PIPELINES)
def test_every_layout_trains_on_packed_documents_as_on_each_alone(name: str) -> None:
    of_ranks = outcomes()[name]
    loss, weight, norm, moments = documents_alone(PIPELINES[name])
    for together, before, step, _ in of_ranks:
        assert before == pytest.approx((loss, weight), rel=1e-5)
        assert step == pytest.approx((loss / weight, norm), rel=1e-5)
        assert abs(together[0] - loss) > 1e-2 * loss
    tensors, _ = assemble([pieces for *_, pieces in of_ranks])
    for key, expected in moments.items():
        torch.testing.assert_close(tensors[key], expected, atol=1e-7, rtol=1e-4)
