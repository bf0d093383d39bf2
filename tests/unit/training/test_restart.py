"""An attempt after a crash goes on from what the job itself has saved, and only from that."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from megatron.checkpointing.manifest import file_facts, write_manifest
from megatron.environment import JOB_VARIABLE, STARTED_VARIABLE
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from megatron.training.restart import args_of_attempt, going_on, minutes_of_job, saved_by_this_job
from tests.unit.neox_arguments.minimal import MINIMAL

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()


def arguments(**changes: object) -> NeoXArgs:
    config = {"save": "ours", "load": "base", "load_if_exists": True, "finetune": True, "max_restarts": 1, **changes}
    return NeoXArgs.from_dict({**MINIMAL, **config})


def save(directory: Path, iteration: int, hour: int, job: str | None = None) -> None:
    """A whole checkpoint without tensors, saved by that job on that hour."""
    checkpoint = directory / f"global_step{iteration}"
    checkpoint.mkdir(parents=True)
    state = {"format": 1, "iteration": iteration, "run_state": {}, "scalars": {}, "tensors": {}}
    content = json.dumps({**state, "saved_at": f"2026-01-01T{hour}:00:00+00:00", "job": job}).encode()
    (checkpoint / "state.json").write_bytes(content)
    write_manifest(checkpoint, {"state.json": file_facts(content)})
    (directory / "latest").write_text(checkpoint.name)


def test_the_first_attempt_is_as_configured() -> None:
    args = arguments()
    assert args_of_attempt(args, restarts=0, has_saved=True) is args


def test_a_later_attempt_is_as_configured_while_nothing_is_saved() -> None:
    args = arguments()
    assert args_of_attempt(args, restarts=1, has_saved=False) is args


@pytest.mark.parametrize("changes", [{}, {"load": None, "finetune": False}, {"iteration": 3}, {"no_load_optim": True}])
def test_a_later_attempt_goes_on_from_what_is_saved_whatever_load_says(changes: dict[str, object]) -> None:
    args = args_of_attempt(arguments(**changes), restarts=2, has_saved=True)
    assert (args.load, args.iteration, args.finetune, args.no_load_optim) == ("ours", None, False, False)
    assert args.save == "ours"


def test_only_what_the_job_has_saved_counts_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "ours")
    monkeypatch.setenv(STARTED_VARIABLE, str(NOON))
    assert not saved_by_this_job(str(tmp_path / "nowhere"))
    save(tmp_path, 10, hour=13, job="another")
    assert not saved_by_this_job(str(tmp_path)), "left by an earlier job, on a machine whose clock is ahead"
    save(tmp_path, 20, hour=11, job="ours")
    assert saved_by_this_job(str(tmp_path)), "saved by a machine whose clock is behind"


def test_a_job_without_a_name_goes_by_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    monkeypatch.setenv(STARTED_VARIABLE, str(NOON))
    save(tmp_path, 100, hour=11)
    assert not saved_by_this_job(str(tmp_path)), "left by an earlier job"
    save(tmp_path, 20, hour=12)
    assert saved_by_this_job(str(tmp_path))


def test_the_environment_says_which_attempt_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 20, hour=13, job="ours")
    args = arguments(save=str(tmp_path))
    monkeypatch.setenv(JOB_VARIABLE, "ours")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert going_on(args, SINGLE) is args
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert going_on(args, SINGLE).load == str(tmp_path)


def test_the_minutes_of_a_job_count_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron.training.restart.time.time", lambda: NOON + 90)
    monkeypatch.setenv(STARTED_VARIABLE, str(NOON))
    assert minutes_of_job() == 1.5
