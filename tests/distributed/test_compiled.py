"""Compiled blocks in every layout: the losses and gradient norms of plain blocks, by two graphs on each rank, collectives among them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from megatron.data.batch import Batch
from megatron.mpu.random_bits import sample_keys
from tests.compiling import GRAPHS_AND_NO_KERNELS, fresh_graphs, graphs
from tests.deepspeed_world import Case, start_engine
from tests.worlds import run_world

STEPS = 3
LR = 1e-3  # with a larger one Adam makes much of the rounding of gradients near 0
TOLERANCE = 5e-6  # of fp32, rounded in another order
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
RECOMPUTE = {"checkpoint_activations": True, "checkpoint_num_layers": 2}
NEOX = {"pos_emb": "rotary", "gpt_j_residual": True, "rotary_pct": 0.5}
LLAMA = {
    "norm": "rmsnorm",
    "pos_emb": "rotary",
    "activation": "swiglu",
    "mlp_multiple_of": 8,
    "use_bias_in_attn_linear": False,
    "use_bias_in_mlp": False,
}
NORMS_BEHIND = {**LLAMA, "norm_position": "post", "use_qk_layernorm": True, "qk_layernorm_scope": "all_heads"}
CASES = {
    "tensor 2, NeoX, recomputed": Case(tensor=2, gpt=True, accumulation=2, overrides={**NEOX, **DROPOUT, **RECOMPUTE}),
    "tensor 2 in sequence, norms behind": Case(
        tensor=2, gpt=True, overrides={**NORMS_BEHIND, **DROPOUT, "sequence_parallel": True}
    ),
    "pipe 2, Llama, recomputed from the host": Case(
        pipe=2, gpt=True, accumulation=4, overrides={**LLAMA, **RECOMPUTE, "checkpoint_in_cpu": True}
    ),
}
FURTHER = {
    "tensor 2 in sequence, NeoX": Case(
        tensor=2, gpt=True, accumulation=2, overrides={**NEOX, "sequence_parallel": True}
    ),
    "tensor 2, Llama, divided": Case(
        tensor=2, gpt=True, overrides={**LLAMA, **RECOMPUTE, "partition_activations": True}
    ),
    "context 2, Llama": Case(context=2, gpt=True, overrides={**LLAMA, **DROPOUT}),
    "data 2, stage 2, Llama": Case(
        data=2,
        zero=2,
        gpt=True,
        precision="bfloat16",
        overrides={**LLAMA, "checkpoint_activations": True, "recompute_granularity": "selective"},
    ),
}
Figures = list[tuple[float, float | None]]


def _train(case: Case) -> Figures:
    started = start_engine(case)
    figures = []
    for step in range(STEPS):
        result = started.engine.train_step(_with_keys(started.batches(step)), lr=LR)
        figures.append((result.loss, result.grad_norm))
    started.engine.evaluate_step(_with_keys(started.batches(STEPS)))
    return figures


def _with_keys(batches: list[Batch] | None) -> list[Batch] | None:
    """The batches with what their masks of dropout follow from."""
    if batches is None:
        return None
    return [replace(batch, dropout_keys=sample_keys(range(len(batch.tokens)), seed=1, step=0)) for batch in batches]


def _train_both_ways(rank: int, cases: dict[str, Case], backend: str) -> dict[str, tuple[Figures, Figures, int]]:
    outcomes = {}
    for name, case in cases.items():
        plain = _train(case)
        with fresh_graphs(backend):
            compiled = _train(replace(case, overrides={**case.overrides, "compile": True}))
            outcomes[name] = plain, compiled, graphs()
    return outcomes


def _check(outcomes: list[dict[str, Any]]) -> None:
    for of_rank in outcomes:
        for name, (plain, compiled, captured) in of_rank.items():
            assert captured == 2, name
            torch.testing.assert_close(
                torch.tensor(compiled),
                torch.tensor(plain),
                rtol=TOLERANCE,
                atol=0,
                msg=lambda text, n=name: f"{n}: {text}",
            )


def test_layouts_train_by_graphs_as_without() -> None:
    _check(run_world(2, _train_both_ways, CASES, GRAPHS_AND_NO_KERNELS))


@pytest.mark.matrix
def test_further_layouts_train_by_graphs_as_without() -> None:
    _check(run_world(2, _train_both_ways, FURTHER, GRAPHS_AND_NO_KERNELS))


@pytest.mark.nightly
def test_layouts_train_by_compiled_kernels_as_without() -> None:
    _check(run_world(2, _train_both_ways, CASES, "inductor"))
