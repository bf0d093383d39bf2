"""Training that goes on while its checkpoint is written: what is written is the state as it was, and errors reach all ranks."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch.distributed as dist

from megatron.checkpointing.digest import logical_sha256
from megatron.checkpointing.layout import list_checkpoints
from megatron.checkpointing.manifest import check_files
from megatron.checkpointing.saving import hashing_writer, save
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.training.checkpointer import Checkpointer
from megatron.training.data_ledger import DataLedger
from megatron.training.exit_policy import ExitPolicy
from megatron.training.guards.spikes import Spike
from megatron.training.rollback import Rollback
from megatron.training.state import TrainState
from tests.deepspeed_world import Case, Engines, start_engine
from tests.worlds import error_of, run_world

FP16 = {"fp16": {"enabled": True, "initial_scale_power": 8}}
OFFLOAD = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
DIVIDE_ALL = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0, "sub_group_size": 300}}
CASES = {
    "fp32, stage 0": Case(data=2, tied=True),
    "fp32, stage 2, offloaded": Case(data=2, zero=2, overrides=OFFLOAD),
    "bf16, stage 1": Case(data=2, zero=1, precision="bfloat16"),
    "bf16, stage 2": Case(data=2, zero=2, precision="bfloat16", tied=True),
    "bf16, stage 3": Case(data=2, zero=3, precision="bfloat16", overrides=DIVIDE_ALL),
    "fp16, tensor 2": Case(tensor=2, zero=1, precision="fp16", tied=True, overrides=FP16),
    "bf16, pipe 2, tied": Case(pipe=2, zero=1, accumulation=2, tied=True, precision="bfloat16"),
}


class Told:
    """In place of a reporter."""

    def __init__(self) -> None:
        self.events: list[tuple[int, Mapping[str, Any], str]] = []

    def event(self, iteration: int, values: Mapping[str, Any], text: str) -> None:
        self.events.append((iteration, values, text))


class Run(NamedTuple):
    """An engine, and what saves its state in the background."""

    engines: Engines
    checkpointer: Checkpointer
    told: Told

    def steps(self, begin: int, end: int) -> TrainState:
        self.engines.steps(begin, end)
        return TrainState(iteration=end)


def start_run(case: Case, directory: Path, **changes: Any) -> Run:
    saving = {"save": str(directory), "async_save": True, **changes}
    engines = start_engine(replace(case, overrides={**case.overrides, **saving}))
    told = Told()
    return Run(engines, Checkpointer(engines.args, engines.engine, told, DataLedger()), told)  # type: ignore[arg-type]


@contextmanager
def held_back() -> Iterator[threading.Event]:
    """Within it, nothing is written before the event."""
    goes_on, write = threading.Event(), save.write_tensors

    def wait_and_write(*arguments: Any) -> Any:
        assert goes_on.wait(60)
        return write(*arguments)

    save.write_tensors = wait_and_write
    try:
        yield goes_on
    finally:
        goes_on.set()
        save.write_tensors = write


class Outcome(NamedTuple):
    """What a rank saw. early: checkpoints that were complete while writing was held back; stalls: by the reports' own numbers."""

    early: list[int]
    last_while_writing: Path | None
    last: Path | None
    reports: list[str]
    stalls: list[float]
    iterations: list[int]


def train_while_saving(case: Case, directory: Path) -> Outcome:
    """Save after 2 steps, at once and in the background, which does not begin to write before 2 more steps are made; again after 4 and 5."""
    run = start_run(case, directory / "beside")
    state = run.steps(0, 2)
    save_checkpoint(directory / "at_once", run.engines.engine, iteration=2, run_state=state.to_dict())
    with held_back() as goes_on:
        run.checkpointer.save(state)
        later = run.steps(2, 4)
        run.checkpointer.poll(later)
        early = [found.iteration for found in list_checkpoints(directory / "beside")]
        last_while_writing = run.checkpointer.last
        goes_on.set()
        run.checkpointer.settle(later)
    save_checkpoint(directory / "at_once", run.engines.engine, iteration=4, run_state=later.to_dict())
    run.checkpointer.save(later)
    end = run.steps(4, 5)
    run.checkpointer.finish(later)  # it is on its way, and not written a second time
    run.checkpointer.finish(end)
    events = run.told.events
    return Outcome(
        early,
        last_while_writing,
        run.checkpointer.last,
        [text for _, _, text in events],
        [values["checkpoint/stall_seconds"] for _, values, _ in events],
        [iteration for iteration, _, _ in events],
    )


def serve_cases(rank: int, directory: Path) -> dict[str, Outcome]:
    return {name: train_while_saving(case, directory / name) for name, case in CASES.items()}


def test_what_is_written_while_training_goes_on_is_the_state_as_it_was(tmp_path: Path) -> None:
    for of_cases in run_world(2, serve_cases, tmp_path):
        for name, outcome in of_cases.items():
            assert outcome.early == [], name
            assert outcome.last_while_writing is None, name
            assert outcome.last == tmp_path / name / "beside" / "global_step5"
            assert outcome.iterations == [4, 4, 5], name
            assert all(0 < stall < 5 for stall in outcome.stalls)
            assert outcome.reports[0].startswith(
                f"saved {tmp_path / name / 'beside' / 'global_step2'} in the background in"
            )
            assert f"(training stood still for {outcome.stalls[0]:.2f} s)" in outcome.reports[0]
            assert outcome.reports[2].endswith("(training stood still)")
    for name in CASES:
        digests = []
        for iteration in (2, 4):
            at_once, beside = (tmp_path / name / how / f"global_step{iteration}" for how in ("at_once", "beside"))
            check_files(beside, "full")
            digests.append(logical_sha256(beside))
            assert digests[-1] == logical_sha256(at_once), (name, iteration)
        assert digests[0] != digests[1]


def go_back_while_saving(rank: int, directory: Path) -> tuple[TrainState, list[str]]:
    """A spike is found while the newest checkpoint is being written."""
    run = start_run(Case(data=2, zero=1), directory)
    state = run.steps(0, 1)
    run.checkpointer.save(state)
    run.checkpointer.settle(state)
    with held_back() as goes_on:
        state = run.steps(1, 2)
        run.checkpointer.save(state)
        state = run.steps(2, 3)
        threading.Timer(0.3 + 0.3 * rank, goes_on.set).start()
        roll_back = Rollback(
            run.engines.engine,
            run.checkpointer,
            run.told,  # type: ignore[arg-type]
            lambda state, ledger: SimpleNamespace(ledger=DataLedger()),  # type: ignore[arg-type, return-value]
        )
        now, _ = roll_back(state, Spike("loss", 9.0, 1.0, 20.0))
    return now, [text for _, _, text in run.told.events]


def test_a_way_back_leads_to_the_checkpoint_that_was_still_being_written(tmp_path: Path) -> None:
    for now, told in run_world(2, go_back_while_saving, tmp_path):
        assert now.iteration == 2
        assert [text.split(" in the background")[0] for text in told[:2]] == [
            f"saved {tmp_path / f'global_step{iteration}'}" for iteration in (1, 2)
        ]
        assert f"back to {tmp_path / 'global_step2'}" in told[2]


class Stopped(NamedTuple):
    """How a run with a failing save ended on a rank. again: the error of another save."""

    at: int
    reason: str
    error: str
    again: str
    kept: list[int]


def full_disk(self: hashing_writer.HashedFile, data: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_in_the_background(rank: int, directory: Path) -> Stopped:
    """Rank 1 cannot write the second checkpoint; both go on until they notice."""
    run = start_run(Case(data=2, zero=1), directory)
    policy = ExitPolicy(train_iters=1000, world=run.engines.groups.world, save_failed=run.checkpointer.save_failed)
    state = run.steps(0, 1)
    run.checkpointer.save(state)
    run.checkpointer.settle(state)
    write = hashing_writer.HashedFile.write
    if rank == 1:
        hashing_writer.HashedFile.write = full_disk  # type: ignore[method-assign, assignment]
    state = run.steps(1, 2)
    run.checkpointer.save(state)
    while not policy.reached(state):
        time.sleep(0.2 * rank)  # the ranks find out at different times
        state = run.steps(state.iteration, state.iteration + 1)
        run.checkpointer.poll(state)
    error = error_of(lambda: run.checkpointer.finish(state))
    hashing_writer.HashedFile.write = write  # type: ignore[method-assign]
    again = error_of(lambda: run.checkpointer.save(state))
    dist.barrier()
    return Stopped(
        state.iteration, policy.reason, error, again, [found.iteration for found in list_checkpoints(directory)]
    )


def test_a_save_that_fails_in_the_background_stops_all_ranks_at_one_step_with_one_sentence(tmp_path: Path) -> None:
    first, second = run_world(2, fail_in_the_background, tmp_path)
    assert first == second
    assert 2 <= first.at < 200
    assert first.error.startswith(
        f"saving {tmp_path / 'global_step2'} failed: rank 1: [Errno 28] No space left on device"
    )
    assert first.again == first.error, "what has failed must not be forgotten"
    assert first.kept == [1]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("global")) == ["global_step1"]
    assert not list(tmp_path.glob(".tmp-*"))


def die_in_the_background(rank: int, directory: Path) -> None:
    """Rank 1 is killed while it writes; rank 0 must neither hang nor lose what was saved before."""
    run = start_run(Case(data=2, zero=1), directory)
    state = run.steps(0, 1)
    run.checkpointer.save(state)
    run.checkpointer.settle(state)
    if rank == 1:
        hashing_writer.HashedFile.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign, assignment]
    run.checkpointer.save(TrainState(iteration=2))
    began = time.monotonic()
    run.checkpointer.give_last_chance()
    error = error_of(lambda: run.checkpointer.finish(state))
    (directory / "message").write_text(f"{time.monotonic() - began < 20} {error}")


def test_a_rank_that_is_killed_while_it_saves_in_the_background_holds_nobody_up(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="rank 1 died without an answer"):
        run_world(2, die_in_the_background, tmp_path)
    message = (tmp_path / "message").read_text()
    assert message.startswith(f"True saving {tmp_path / 'global_step2'} failed: another rank has died")
    assert [found.iteration for found in list_checkpoints(tmp_path)] == [1]
