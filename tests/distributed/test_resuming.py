"""What a run takes over from a checkpoint, and what it does not: whole runs of two processes, each going on in its own way."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron.checkpointing.loading import load
from megatron.checkpointing.ranks import Ranks
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.engine.protocol import FullTensor
from megatron.errors import NeoXError
from megatron.initialize import join_world
from megatron.neox_arguments import NeoXArgs
from megatron.optim.lr_schedules import LearningRates
from megatron.training.loop import train
from megatron.training.setup import build_run
from tests import deepspeed_world  # noqa: F401  prepares torch and DeepSpeed for forked ranks
from tests.worlds import run_world

BATCH, LENGTH = 4, 16
VALIDATION = "checkpoint_validation_with_forward_pass"
CONFIG = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "seq_length": LENGTH,
    "max_position_embeddings": LENGTH,
    "pos_emb": "rotary",
    "rotary_pct": 0.5,
    "init_method_std": 0.3,
    "output_layer_init_method": "normal",
    "train_batch_size": BATCH,
    "train_iters": 6,
    "lr": 1e-2,
    "min_lr": 1e-3,
    "lr_decay_style": "cosine",
    "split": "100,0,0",
    "eval_iters": 0,
    "num_workers": 0,
    "tokenizer_type": "CharLevelTokenizer",
    "checkpoint_factor": 3,
    "global_num_gpus": 2,
    "log_interval": 1,
    "hidden_dropout": 0.1,
    "reset_attention_mask": True,
    VALIDATION: True,
}
HALF = LearningRates(lr=5e-3, lr_decay_style="cosine", lr_decay_iters=6, min_lr=1e-3, warmup=0.01)
"""Of runs that ask for half the learning rate."""

LAYOUTS = {
    "pipeline": {"pipe_parallel_size": 2, "gradient_accumulation_steps": 2},
    "tensor": {"model_parallel_size": 2},
    "context": {"context_parallel_size": 2},
    "ZeRO 3": {"zero_optimization": {"stage": 3}},
    "bf16": {"precision": "bfloat16"},
}


@dataclass(frozen=True)
class Ended:
    """What became of a run on one rank: by iteration the metrics of its steps, and what it had when it began."""

    error: str = ""
    began_at: int = 0
    consumed: int = 0
    optimizer_step: int = 0
    largest_moment: float = 0.0
    weights: dict[str, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)


def _run(directory: Path, name: str, *, steps: bool = True, **changes: Any) -> Ended:
    """Train as configured, or without `steps` only load; each run has a directory of its own."""
    places = {"log_dir": str(directory / name), "save": str(directory / name / "checkpoints")}
    args = NeoXArgs.from_dict({**CONFIG, **places, "data_path": str(directory / "data"), **changes})
    try:
        run, state = build_run(args, join_world(args))
    except NeoXError as problem:
        return Ended(error=str(problem))
    tensors = run.engine.state_tensors()
    began = Ended(
        began_at=state.iteration,
        consumed=state.consumed_samples,
        optimizer_step=int(run.engine.state_scalars()["optimizer_step"]),
        largest_moment=_largest(tensors, "exp_avg"),
        weights={each: _sum(tensor) for each, tensor in tensors.items() if each.endswith("/weight")},
    )
    if not steps:
        run.reporter.close()
        return began
    state = train(run, state)
    run.checkpointer.finish(state)
    run.reporter.close()
    torch.distributed.barrier()
    records = list(map(json.loads, (directory / name / "metrics.jsonl").read_text().splitlines()))
    metrics = {record["iteration"]: record for record in records if "loss" in record and "lr" in record}
    return replace(
        began,
        losses={iteration: step["loss"] for iteration, step in metrics.items()},
        rates={iteration: step["lr"] for iteration, step in metrics.items()},
    )


def _largest(tensors: dict[str, FullTensor], kind: str) -> float:
    found = [piece.tensor for name, full in tensors.items() if name.endswith(f"/{kind}") for piece in full.pieces]
    return max(float(tensor.abs().max()) for tensor in found if tensor.numel())


def _sum(tensor: FullTensor) -> float:
    return sum(float(piece.tensor.double().sum()) for piece in tensor.pieces)


def _all_runs(rank: int, directory: Path) -> dict[str, Ended]:
    ended = {"whole": _run(directory, "whole"), "plain": _run(directory, "plain", **{VALIDATION: False})}
    from_6 = {"load": str(directory / "whole" / "checkpoints")}
    from_3 = {**from_6, "iteration": 3}
    for name, changes in {
        "resumed": {**from_3, "no_load_rng": True},
        "finetuned": {**from_3, "finetune": True, "lr": 5e-3},
        "fresh optimizer": {**from_3, "no_load_optim": True, "lr": 5e-3},
        "other rates": {**from_3, "lr": 5e-3, "warmup": 0.5},
        "own rates": {**from_3, "lr": 5e-3, "override_lr_scheduler": True},
        "longer": {**from_6, "train_iters": 8},
        "kept rates": {**from_6, "train_iters": 8, "lr": 5e-3, "use_checkpoint_lr_scheduler": True},
    }.items():
        ended[name] = _run(directory, name, **changes)
    kept = {"load": str(directory / "kept rates" / "checkpoints"), "lr": 5e-3, "use_checkpoint_lr_scheduler": True}
    ended["still kept rates"] = _run(directory, "still kept rates", train_iters=9, **kept)
    for layout, changes in LAYOUTS.items():
        ended[f"in {layout}"] = _run(directory, layout, steps=False, **from_3, **changes)
    ended["other rotations"] = _run(directory, "other", steps=False, **from_3, rotary_pct=1.0)
    ended["without a forward pass"] = _run(
        directory, "without", steps=False, load=str(directory / "plain" / "checkpoints")
    )
    with _one_layer_is_not_loaded():
        ended["lost layer"] = _run(directory, "lost", steps=False, **from_3)
        ended["lost layer, unseen"] = _run(directory, "lost", steps=False, **from_3, **{VALIDATION: False})
    return ended


@contextlib.contextmanager
def _one_layer_is_not_loaded() -> Iterator[None]:
    """Reading leaves out the weights of the first block."""
    read = load.read_tensors

    def lose(checkpoint: Path, tensors: dict[str, FullTensor], ranks: Ranks) -> None:
        read(checkpoint, {name: full for name, full in tensors.items() if not name.startswith("2.")}, ranks)

    load.read_tensors = lose
    try:
        yield
    finally:
        load.read_tensors = read


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    directory = tmp_path_factory.mktemp("resuming")
    generator = np.random.default_rng(0)
    with IndexedDatasetWriter(directory / "data", dtype=np.uint16) as writer:
        for _ in range(60):
            writer.add_document(generator.integers(0, 100, size=20))
    first, second = run_world(2, _all_runs, directory)
    assert {name: run.error for name, run in first.items()} == {name: run.error for name, run in second.items()}
    return first


def test_the_iteration_asked_for_goes_on_to_the_bit_and_random_numbers_need_no_loading(ended: dict[str, Ended]) -> None:
    whole, resumed = ended["whole"], ended["resumed"]
    assert (resumed.began_at, resumed.consumed, resumed.optimizer_step) == (3, 3 * BATCH, 3)
    assert resumed.losses == {iteration: whole.losses[iteration] for iteration in (4, 5, 6)}
    assert resumed.rates == {iteration: whole.rates[iteration] for iteration in (4, 5, 6)}


def test_finetune_takes_weights_alone_and_starts_a_new_run(ended: dict[str, Ended]) -> None:
    run, whole = ended["finetuned"], ended["whole"]
    assert (run.began_at, run.consumed, run.optimizer_step, run.largest_moment) == (0, 0, 0, 0.0)
    assert run.weights == ended["resumed"].weights
    assert run.weights != whole.weights
    assert list(run.losses) == [1, 2, 3, 4, 5, 6]
    assert run.rates == {step: HALF.after(step - 1) for step in range(1, 7)}


def test_no_load_optim_keeps_counters_and_data_and_begins_a_fresh_optimizer(ended: dict[str, Ended]) -> None:
    run, whole = ended["fresh optimizer"], ended["whole"]
    assert (run.began_at, run.consumed, run.optimizer_step, run.largest_moment) == (3, 3 * BATCH, 0, 0.0)
    assert run.weights == ended["resumed"].weights
    assert run.losses[4] == whole.losses[4]  # before the first update: the same weights, data and dropout
    assert run.losses[5] != whole.losses[5]
    assert run.rates == ended["own rates"].rates  # the config's, at the iteration it has come to


def test_other_learning_rates_are_refused_with_what_was_and_is_until_it_is_said_which_are_meant(
    ended: dict[str, Ended],
) -> None:
    error = ended["other rates"].error
    assert "lr was 0.01 and is 0.005, warmup was 0.01 and is 0.5." in error
    assert "set override_lr_scheduler: true" in error
    assert "use_checkpoint_lr_scheduler: true" in error
    assert "lr_decay_iters was 6 and is 8 (train_iters, as none is given)." in ended["longer"].error
    assert ended["own rates"].rates == {step: HALF.after(step - 1) for step in (4, 5, 6)}


def test_the_rates_of_the_checkpoint_are_kept_in_every_later_step_and_in_later_checkpoints(
    ended: dict[str, Ended],
) -> None:
    assert ended["kept rates"].rates == {7: 1e-3, 8: 1e-3}
    assert ended["still kept rates"].rates == {9: 1e-3}


def test_a_forward_pass_gives_the_same_in_every_layout_and_disturbs_nothing(ended: dict[str, Ended]) -> None:
    assert {layout: ended[f"in {layout}"].error for layout in LAYOUTS} == dict.fromkeys(LAYOUTS, "")
    assert ended["plain"].losses == ended["whole"].losses
    assert ended["without a forward pass"].error == ""


def test_a_forward_pass_sees_a_changed_setting_and_weights_that_were_not_loaded(ended: dict[str, Ended]) -> None:
    for name in ("other rotations", "lost layer"):
        assert "global_step3 does not compute what it did when it was saved: the loss" in ended[name].error
    assert ended["lost layer, unseen"].error == ""
