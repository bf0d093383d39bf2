"""One run at a time saves into a store: the one that started last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megatron.checkpointing.layout import describe_directory, is_empty, list_checkpoints
from megatron.checkpointing.places import place
from megatron.checkpointing.remote import ownership
from megatron.checkpointing.remote.objects import object_of
from megatron.checkpointing.remote.ownership import OWNER
from megatron.checkpointing.remote.upload import is_uploaded, upload_checkpoint
from megatron.checkpointing.saving.save import check_can_save, save_checkpoint
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from tests.unit.checkpointing.fakes import fake_engine
from tests.unit.checkpointing.remote.conftest import URL, Requests


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_mine", {})


def start_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process says that it saves there; this one knows no more of itself than before."""
    mine = ownership._mine
    with monkeypatch.context() as there:
        there.setattr(ownership, "_mine", {})
        check_can_save(URL, group=SINGLE)
    assert ownership._mine is mine


def test_a_run_that_was_started_later_takes_over_and_the_earlier_one_stops_without_touching_anything(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_can_save(URL, group=SINGLE)
    save_checkpoint(URL, fake_engine(), iteration=1, run_state={})
    start_another_run(monkeypatch)
    for iteration in (1, 2):
        with pytest.raises(CheckpointError, match=rf"another run saves into {URL} now: process {os.getpid()} on host"):
            save_checkpoint(URL, fake_engine(), iteration=iteration, run_state={})
    assert [found.iteration for found in list_checkpoints(URL)] == [1]


def test_one_that_starts_while_a_checkpoint_is_uploaded_is_seen_before_it_is_published(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_can_save(URL, group=SINGLE)

    def start_meanwhile(method: str, key: str) -> None:
        if method == "put_file" and key.endswith(".distcp"):
            requests.fail = lambda method, key: None
            start_another_run(monkeypatch)

    requests.fail = start_meanwhile
    with pytest.raises(CheckpointError, match="another run saves into"):
        save_checkpoint(URL, fake_engine(), iteration=1, run_state={})
    assert list_checkpoints(URL) == []


def test_the_same_run_may_ask_again_and_a_lost_or_strange_file_stops_nobody(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_can_save(URL, group=SINGLE)
    assert is_empty(place(URL))
    assert describe_directory(place(URL)) == "the directory is empty"
    check_can_save(URL, group=SINGLE)
    save_checkpoint(URL, fake_engine(), iteration=1, run_state={})
    for change in (object_of(place(URL) / OWNER).remove, lambda: object_of(place(URL) / OWNER).write(b"garbage")):
        change()
        save_checkpoint(URL, fake_engine(), iteration=2, run_state={})
    start_another_run(monkeypatch)
    check_can_save(URL, group=SINGLE)  # does not take back what another run has taken over
    with pytest.raises(CheckpointError, match="another run saves into"):
        save_checkpoint(URL, fake_engine(), iteration=3, run_state={})


def test_of_two_runs_that_upload_to_one_place_the_one_that_began_last_goes_on(
    requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = (save_checkpoint(tmp_path / name, fake_engine(), iteration=1, run_state={}) for name in "ab")
    upload_checkpoint(mine, URL, group=SINGLE)
    with monkeypatch.context() as there:
        there.setattr(ownership, "_mine", {})
        upload_checkpoint(other, URL, group=SINGLE)
    with pytest.raises(CheckpointError, match=f"another run saves into {URL} now: process {os.getpid()}"):
        upload_checkpoint(mine, URL, group=SINGLE)
    assert is_uploaded(other, URL)
