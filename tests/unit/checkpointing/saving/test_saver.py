"""One checkpoint after the other, at once or beside the training: in order, never two at a time, uploaded before the old ones go."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from megatron.checkpointing.layout import list_checkpoints
from megatron.checkpointing.places import place
from megatron.checkpointing.saving import save, saver, uploads
from megatron.checkpointing.saving.host_copies import HostCopies
from megatron.checkpointing.saving.save import save_checkpoint, take_snapshot
from megatron.checkpointing.saving.saver import Saver
from megatron.checkpointing.saving.temporaries import clean_directory
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments.keys.checkpoints import CheckpointArgs
from tests.unit.checkpointing.fakes import FakeEngine, fake_engine, full_values


def new_saver(directory: Path, **changes: Any) -> Saver:
    return Saver(CheckpointArgs(save=str(directory), **changes), world=SINGLE)


def begin(saver: Saver, iteration: int, copies: HostCopies, engine: FakeEngine | None = None) -> None:
    snapshot = take_snapshot(engine or fake_engine(), iteration=iteration, run_state={}, copies=copies)
    saver.save_beside_training(snapshot, began=time.perf_counter())


def write_at_once(saver: Saver, iteration: int) -> None:
    saver.save(take_snapshot(fake_engine(), iteration=iteration, run_state={}), began=time.perf_counter())


def iterations(directory: Path) -> list[int]:
    return [found.iteration for found in list_checkpoints(directory)]


@pytest.fixture
def store() -> str:
    """The URL of an empty directory in a store."""
    return f"memory://{uuid.uuid4().hex}/run"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The store takes nothing as long as this list has something."""
    broken: list[int] = []
    upload = uploads.upload_checkpoint

    def maybe_upload(checkpoint: Path, destination: str, **options: Any) -> Path:
        if broken:
            raise CheckpointError(f"uploading {checkpoint} failed: no connection")
        return upload(checkpoint, destination, **options)

    monkeypatch.setattr(uploads, "upload_checkpoint", maybe_upload)
    return broken


def test_saves_are_reported_in_their_order_with_the_time_that_training_stood_still(tmp_path: Path) -> None:
    saver, copies = new_saver(tmp_path, async_save=True, keep_last_n_checkpoints=2), HostCopies()
    for iteration in (1, 2, 3):
        saver.wait()
        begin(saver, iteration, copies)
    saver.finish()
    reports = list(saver.reports())
    assert [report.saved for report in reports] == [tmp_path / f"global_step{iteration}" for iteration in (1, 2, 3)]
    assert all(" in the background in " in report.text for report in reports)
    assert all(0 < report.values["checkpoint/stall_seconds"] < 5 for report in reports)
    assert not list(saver.reports())
    assert iterations(tmp_path) == [2, 3]


def test_what_is_written_at_once_stands_still_for_all_of_it(tmp_path: Path) -> None:
    saver = new_saver(tmp_path)
    write_at_once(saver, 1)
    (report,) = saver.reports()
    assert report.text.startswith(f"saved {tmp_path / 'global_step1'} in 0.")
    assert report.text.endswith("(training stood still)")
    assert report.values["checkpoint/seconds"] == report.values["checkpoint/stall_seconds"]


def test_nothing_runs_and_no_group_is_built_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("not asked for")

    monkeypatch.setattr(saver, "build_saving_group", refuse)
    threads = threading.active_count()
    plain = new_saver(tmp_path)
    write_at_once(plain, 1)
    plain.finish()
    assert threading.active_count() == threads
    with pytest.raises(AssertionError, match="not asked for"):
        new_saver(tmp_path, async_save=True)


def test_a_failure_is_logged_at_once_and_raised_when_the_save_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saver, copies = new_saver(tmp_path, async_save=True), HostCopies()
    begin(saver, 1, copies)
    saver.wait()
    assert not saver.failed

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save, "write_manifest", full)
    begin(saver, 2, copies)
    deadline = time.monotonic() + 10
    while not saver.failed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "No space left on device" in caplog.text
    assert "earlier checkpoints are as they were" in caplog.text
    for wait in (saver.wait, saver.finish):
        with pytest.raises(CheckpointError, match=r"global_step2 failed: .*No space left on device"):
            wait()
    assert iterations(tmp_path) == [1]
    assert not list(tmp_path.glob(".tmp-*"))


def test_another_save_of_this_process_does_not_clean_away_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on, write = threading.Event(), threading.Event(), save.write_tensors

    def slow(*arguments: Any) -> Any:
        if threading.current_thread().name == "saving":
            begun.set()
            assert goes_on.wait(10)
        return write(*arguments)

    monkeypatch.setattr(save, "write_tensors", slow)
    saver = new_saver(tmp_path, async_save=True)
    engine = fake_engine().fill(full_values(1))
    begin(saver, 1, HostCopies(), engine)
    assert begun.wait(10)
    (being_written,) = tmp_path.glob(".tmp-*")
    save_checkpoint(tmp_path, engine, iteration=2, run_state={})
    assert being_written.is_dir()
    goes_on.set()
    saver.finish()
    assert iterations(tmp_path) == [1, 2]
    being_written.mkdir()  # the same name, and now nobody is at work on it
    clean_directory(tmp_path)
    assert not being_written.exists()


@pytest.mark.parametrize("beside", [True, False])
def test_checkpoints_are_uploaded_before_they_may_be_deleted(
    tmp_path: Path, store: str, broken: list[int], caplog: pytest.LogCaptureFixture, beside: bool
) -> None:
    settings = {"s3_path": store, "async_save": beside, "keep_last_n_checkpoints": 1}
    saver, copies = new_saver(tmp_path, **settings), HostCopies()

    def save_and_wait(iteration: int) -> list[str]:
        begin(saver, iteration, copies) if beside else write_at_once(saver, iteration)
        saver.wait()
        return [report.text for report in saver.reports()]

    saved, uploaded = save_and_wait(1)
    assert saved.startswith(f"saved {tmp_path / 'global_step1'}")
    assert uploaded.startswith(f"uploaded {store}/global_step1 in 0.")
    broken.append(1)
    assert len(save_and_wait(2)) == 1
    assert f"uploading {tmp_path / 'global_step2'} failed: no connection; it stays in {tmp_path}" in caplog.text
    save_and_wait(3)
    assert iterations(tmp_path) == [2, 3], "1 is uploaded and may go, 2 is not"
    assert not saver.failed, "an upload may work the next time"
    broken.clear()
    told = [text.split(" in ")[0] for text in save_and_wait(4)[1:]]
    assert told == [f"uploaded {store}/global_step{iteration}" for iteration in (4, 3, 2)], "the newest first"
    assert iterations(tmp_path) == [4]
    assert iterations(place(store)) == [1, 2, 3, 4]
    saver.finish()


def test_what_could_not_be_uploaded_is_tried_at_the_end_and_then_an_error(
    tmp_path: Path, store: str, broken: list[int]
) -> None:
    saver = new_saver(tmp_path, s3_path=store)
    broken.append(1)
    write_at_once(saver, 1)
    with pytest.raises(CheckpointError, match=rf"not uploaded to {store}: global_step1 \(.*no connection\)"):
        saver.finish()
    broken.clear()
    saver.finish()
    assert iterations(place(store)) == [1]


def test_what_a_killed_run_has_not_uploaded_the_next_one_uploads(
    tmp_path: Path, store: str, broken: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    first = new_saver(tmp_path, s3_path=store)
    write_at_once(first, 1)
    first.wait()
    broken.append(1)
    write_at_once(first, 2)
    first.wait()
    broken.clear()
    second = new_saver(tmp_path, s3_path=store, keep_last_n_checkpoints=1)
    with caplog.at_level(logging.INFO):
        second.finish()
    assert [report.text.split(" in ")[0] for report in second.reports()] == [f"uploaded {store}/global_step2"]
    assert iterations(place(store)) == [1, 2]
    assert iterations(tmp_path) == [2]


def test_a_store_that_is_away_is_asked_for_one_checkpoint_and_one_that_is_damaged_holds_up_no_other(
    tmp_path: Path, store: str, broken: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    saver = new_saver(tmp_path, s3_path=store)
    broken.append(1)
    for iteration in (1, 2, 3):
        write_at_once(saver, iteration)
        saver.wait()
    assert caplog.text.count("no connection") == 3
    broken.clear()
    (tmp_path / "global_step3" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=rf"not uploaded to {store}: global_step3 \("):
        saver.finish()
    assert iterations(place(store)) == [1, 2]


def test_that_nothing_can_be_uploaded_is_said_before_training(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(_: Path) -> None:
        raise CheckpointError(f"{store} cannot be reached: no such bucket")

    new_saver(tmp_path, s3_path=store)
    assert not caplog.text
    monkeypatch.setattr(uploads, "check_can_upload", away)
    new_saver(tmp_path, s3_path=store)
    assert f"{store} cannot be reached: no such bucket; until it can be, checkpoints stay in {tmp_path}" in caplog.text
