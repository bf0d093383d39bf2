"""Whole runs of two processes in which something is planted: each ends, or goes on, as its guard promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from megatron.checkpointing.layout import checkpoint_candidates
from megatron.checkpointing.state_file import read_state
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.data.ledger.segments import read_ledger
from megatron.errors import NeoXError
from megatron.initialize import join_world
from megatron.neox_arguments import NeoXArgs
from megatron.training.loop import Run, train
from megatron.training.setup import build_run
from megatron.training.state import TrainState
from tests import deepspeed_world  # noqa: F401  prepares torch and DeepSpeed for forked ranks
from tests.worlds import run_world

BATCH, LENGTH, SPIKE_AT = 4, 8, 13
CONFIG = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "seq_length": LENGTH,
    "max_position_embeddings": LENGTH,
    "train_batch_size": BATCH,
    "train_iters": 20,
    "lr": 1e-4,
    "split": "100,0,0",
    "eval_iters": 0,
    "num_workers": 0,
    "tokenizer_type": "CharLevelTokenizer",
    "checkpoint_factor": 5,
    "global_num_gpus": 2,
    "log_interval": 1,
}
SPIKES = {"window": 8, "threshold": 6}
Plant = Callable[[Run, int, int], None]
"""(run, iteration that begins, rank): changes something in the run."""


class Ended(NamedTuple):
    """What became of a run on one rank; metrics and checkpoints as they lie on disk.

    segments: the steps (from 0), each with its first sample, from which the data goes on differently, as the last checkpoint has it.
    """

    error: str
    records: list[dict[str, Any]]
    saved: dict[int, dict[str, Any]]
    consumed: int
    segments: list[tuple[int, int]]

    @property
    def losses(self) -> list[tuple[int, float]]:
        return [(record["iteration"], record["loss"]) for record in self.records if "loss" in record]

    def events(self, key: str) -> list[dict[str, Any]]:
        return [record for record in self.records if key in record]


def _run(directory: Path, plant: Plant, **changes: Any) -> Ended:
    """Train as configured, with something planted before each step."""
    checkpoints = str(directory / "checkpoints")
    places = {"log_dir": str(directory), "save": checkpoints, "load": checkpoints, "load_if_exists": True}
    args = NeoXArgs.from_dict({**CONFIG, **places, "data_path": str(directory.parent / "data"), **changes})
    run, state = build_run(args, join_world(args))
    begin, rank = run.guards.begin, run.engine.groups.rank

    def begin_with_plant(state: TrainState) -> None:
        plant(run, state.iteration + 1, rank)
        begin(state)

    run.guards.begin = begin_with_plant  # type: ignore[method-assign]
    error = ""
    try:
        state = train(run, state)
        run.checkpointer.finish(state)
    except NeoXError as problem:
        error = str(problem)
    run.reporter.close()
    torch.distributed.barrier()
    metrics = directory / "metrics.jsonl"
    records = list(map(json.loads, metrics.read_text().splitlines())) if metrics.exists() else []
    there = checkpoint_candidates(Path(checkpoints), iteration=None)
    saved = {each.iteration: read_state(each.path).run_state for each in there}
    ledger = read_ledger(max(there, key=lambda each: each.iteration).path)
    assert ledger is not None
    segments = [(each.iteration, each.schedule.samples_before(each.iteration)) for each in ledger.segments]
    return Ended(error, records, saved, state.consumed_samples, segments)


def _nothing(run: Run, iteration: int, rank: int) -> None:
    """Plants nothing."""


def _nan_on_second_rank(*iterations: int) -> Plant:
    """Spoils what a module gives in these."""
    hooks: list[Any] = []

    def plant(run: Run, iteration: int, rank: int) -> None:
        while hooks:
            hooks.pop().remove()
        if iteration in iterations and rank == 1:
            module = run.engine.model.get_submodule("2.mlp")
            hooks.append(module.register_forward_hook(lambda module, given, result: result * float("nan")))

    return plant


def _drift_on_second_rank(run: Run, iteration: int, rank: int) -> None:
    """Moves a weight a little that the two tensor ranks have in common, and its optimizer's copy, which would mend it."""
    if iteration == 7 and rank == 1:
        (piece,) = run.engine.state_tensors()["0.position_embeddings.weight/weight"].pieces
        piece.tensor.view(-1)[5] += 1e-6
        run.engine.after_load()


def _spike_once() -> Plant:
    """Multiplies the loss of one step by 5."""
    done: list[int] = []

    def plant(run: Run, iteration: int, rank: int) -> None:
        objective: Any = run.engine.objective  # type: ignore[attr-defined]
        if iteration == SPIKE_AT and not done:
            done.append(iteration)
            loss_sum = objective.projected_loss_sum
            objective.projected_loss_sum = lambda projection, batch: 5 * loss_sum(projection, batch)
        elif "projected_loss_sum" in vars(objective):
            del objective.projected_loss_sum

    return plant


def _always_spiking(run: Run, iteration: int, rank: int) -> None:
    plant = _spike_once()
    plant(run, iteration, rank)


def _all_runs(rank: int, directory: Path) -> dict[str, Ended]:
    ended = {
        "nan": _run(directory / "nan", _nan_on_second_rank(*range(7, 21))),
        "two": _run(directory / "two", _nan_on_second_rank(3, 4, 6), train_iters=7),
        "desync": _run(directory / "desync", _drift_on_second_rank, check_desync=4, model_parallel_size=2),
        "saving": _run(directory / "saving", _drift_on_second_rank, check_desync=100, model_parallel_size=2),
        "ending": _run(
            directory / "ending", _drift_on_second_rank, check_desync=100, model_parallel_size=2, exit_interval=8
        ),
        "plain": _run(directory / "plain", _nothing),
        "watched": _run(directory / "watched", _nothing, check_desync=1, loss_spike={"policy": "rollback", **SPIKES}),
        "exhausted": _run(
            directory / "exhausted", _always_spiking, loss_spike={"policy": "rollback", "budget": 2, **SPIKES}
        ),
    }
    for policy in ("warn", "skip", "rollback"):
        ended[policy] = _run(
            directory / policy, _spike_once(), loss_spike={"policy": policy, **SPIKES}, async_save=policy == "rollback"
        )
    spiking = {"loss_spike": {"policy": "rollback", **SPIKES}}
    ended["native"] = _run(directory / "native", _spike_once(), **spiking, deepspeed=False)
    # The same in two parts, saved at once: the spike, the way back and a checkpoint; then what is left.
    _run(directory / "parts", _spike_until_stopped(at=17), **spiking)
    ended["parts"] = _run(directory / "parts", _nothing, **spiking)
    return ended


def _spike_until_stopped(*, at: int) -> Plant:
    """As `_spike_once`, and ends the run when it comes to that iteration."""
    spike = _spike_once()

    def plant(run: Run, iteration: int, rank: int) -> None:
        if iteration == at:
            raise NeoXError("stopped")
        spike(run, iteration, rank)

    return plant


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Ended]]:
    directory = tmp_path_factory.mktemp("guarded")
    generator = np.random.default_rng(0)
    with IndexedDatasetWriter(directory / "data", dtype=np.uint16) as writer:
        for _ in range(60):
            writer.add_document(generator.integers(0, 100, size=20))
    return run_world(2, _all_runs, directory)


def test_a_planted_nan_is_explained_once_and_ends_the_run_without_saving(ended: list[dict[str, Ended]]) -> None:
    for of_rank in ended:
        assert "the loss of the last 10 iterations was nan: the run has diverged" in of_rank["nan"].error
    (event,) = ended[0]["nan"].events("non_finite")
    assert event["iteration"] == 7
    assert "comes out of the forward pass of 2.mlp (" in event["non_finite"]
    assert ") on rank 1, in micro-batch 1 of the step, made of " in event["non_finite"]
    assert "/data: document" in event["non_finite"]
    assert sorted(ended[0]["nan"].saved) == [5, 10, 15]  # steps without an update leave good weights


def test_a_nan_that_comes_again_is_explained_again(ended: list[dict[str, Ended]]) -> None:
    assert ended[0]["two"].error == ""
    assert [event["iteration"] for event in ended[0]["two"].events("non_finite")] == [3, 6]


@pytest.mark.parametrize(("name", "found_after"), [("desync", 8), ("saving", 10), ("ending", 8)])
def test_a_planted_desync_is_named_before_anything_is_saved(
    ended: list[dict[str, Ended]], name: str, found_after: int
) -> None:
    for of_rank in ended:
        error = of_rank[name].error
        assert 'the weights of "0.position_embeddings.weight" are not the same on rank 1 as on rank 0' in error
        assert f"after iteration {found_after} " in error
    assert sorted(ended[0][name].saved) == [5]


def test_guards_that_find_nothing_change_nothing(ended: list[dict[str, Ended]]) -> None:
    assert ended[0]["watched"].losses == ended[0]["plain"].losses
    assert ended[0]["watched"].error == ended[0]["plain"].error == ""


def test_warn_tells_of_a_spike_and_goes_on(ended: list[dict[str, Ended]]) -> None:
    warned, plain = ended[0]["warn"], ended[0]["plain"]
    (event,) = warned.events("loss_spike")
    assert (event["iteration"], event["loss_spike"]) == (SPIKE_AT, "warn")
    assert event["spike_value"] == pytest.approx(5 * dict(plain.losses)[SPIKE_AT])
    assert len(warned.losses) == 20


def test_skip_leaves_the_update_out(ended: list[dict[str, Ended]]) -> None:
    skipped, plain = ended[0]["skip"], ended[0]["plain"]
    (event,) = skipped.events("loss_spike")
    assert (event["iteration"], event["loss_spike"]) == (SPIKE_AT, "skip")
    (record,) = [record for record in skipped.records if record.get("skipped")]
    assert record["iteration"] == SPIKE_AT
    assert skipped.losses[: SPIKE_AT - 1] == plain.losses[: SPIKE_AT - 1]
    assert len(skipped.losses) == 20
    assert skipped.saved[20]["skipped_iterations"] == skipped.saved[20]["spikes_handled"] == 1


def test_rollback_goes_on_behind_the_spike_from_the_last_checkpoint(ended: list[dict[str, Ended]]) -> None:
    back = ended[0]["rollback"]
    (event,) = back.events("loss_spike")
    assert event["loss_spike"] == "rollback"
    assert (event["iteration"], event["rolled_back_to"]) == (SPIKE_AT, 10)
    assert event["samples_passed_over"] == 3 * BATCH
    assert [iteration for iteration, _ in back.losses] == [*range(1, SPIKE_AT + 1), *range(11, 21)]
    assert back.losses[: SPIKE_AT - 1] == ended[0]["plain"].losses[: SPIKE_AT - 1]
    assert back.saved[20]["consumed_samples"] == (20 + 3) * BATCH
    assert back.saved[20]["consumed_tokens"] == (20 + 3) * BATCH * LENGTH
    assert back.saved[20]["spikes_handled"] == 1
    assert back.segments == [(0, 0), (10, (10 + 3) * BATCH)]
    assert ended[0]["plain"].segments == [(0, 0)]
    # The iteration after the way back reads what iteration 14 of the unbroken run reads, with the weights of the checkpoint.
    assert back.losses[SPIKE_AT][1] != ended[0]["plain"].losses[10][1]


def test_a_run_resumed_after_a_rollback_is_the_unbroken_one(ended: list[dict[str, Ended]]) -> None:
    assert dict(ended[0]["parts"].losses) == dict(ended[0]["rollback"].losses)
    assert ended[0]["parts"].saved[20] == ended[0]["rollback"].saved[20]


def test_a_rollback_without_deepspeed_is_that_with_it(ended: list[dict[str, Ended]]) -> None:
    native, back = ended[0]["native"], ended[0]["rollback"]
    assert [iteration for iteration, _ in native.losses] == [iteration for iteration, _ in back.losses]
    assert [loss for _, loss in native.losses] == pytest.approx([loss for _, loss in back.losses], rel=5e-6)
    assert native.segments == back.segments
    assert native.saved[20]["consumed_samples"] == back.saved[20]["consumed_samples"]


def test_a_used_up_budget_ends_the_run(ended: list[dict[str, Ended]]) -> None:
    for of_rank in ended:
        assert "the budget of loss_spike, 2, is used up: the run stops without saving" in of_rank["exhausted"].error
    assert len(ended[0]["exhausted"].events("rolled_back_to")) == 2
    assert sorted(ended[0]["exhausted"].saved) == [5, 10]
