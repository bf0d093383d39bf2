"""Saving to and loading from a store, in a world of one process."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from megatron.checkpointing.files import temporary_path
from megatron.checkpointing.layout import describe_directory, find_checkpoint, list_checkpoints, read_latest
from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.manifest import Verification, check_files
from megatron.checkpointing.places import place
from megatron.checkpointing.remote import ranges
from megatron.checkpointing.remote.objects import StoredObject
from megatron.checkpointing.remote.publish import Upload, begin, remove_checkpoint
from megatron.checkpointing.saving import retention, temporaries
from megatron.checkpointing.saving.retention import prune_checkpoints
from megatron.checkpointing.saving.save import check_can_save, save_checkpoint, take_snapshot, write_snapshot
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from tests.unit.checkpointing.fakes import FakeEngine, fake_engine, full_values
from tests.unit.checkpointing.remote.conftest import URL, Requests

VALUES = full_values(1)
MANIFEST = "global_step{}/manifest.json"


def saved(*iterations: int) -> Path:
    """Checkpoints of these iterations; the path of the last."""
    engine = fake_engine(seed=1).fill(VALUES)
    for iteration in iterations:
        path = save_checkpoint(
            URL, engine, iteration=iteration, run_state={"at": iteration}, config_yaml="x: 1\n", files={"a.json": b"{}"}
        )
    return path


def loaded(seed: int = 5) -> tuple[FakeEngine, str]:
    """An engine that was filled from the store, and the checkpoint that was taken."""
    target = fake_engine(seed=seed)
    found = load_checkpoint(URL, target)
    assert found is not None
    return target, found.path.name


def test_what_is_loaded_is_what_was_saved_in_any_other_cut(requests: Requests) -> None:
    path = saved(3)
    assert sorted(entry.name for entry in place(URL).iterdir()) == ["global_step3", "latest"]
    names = [".metadata", "__0_0.distcp", "a.json", "configs", "manifest.json", "state.json"]
    assert sorted(entry.name for entry in path.iterdir()) == names
    check_files(path, "full")
    for seed in range(5):
        target = fake_engine(seed=seed)
        found = load_checkpoint(URL, target, verification="full")
        assert found is not None
        assert (found.path, found.run_state) == (path, {"at": 3})
        assert target.holds(VALUES)
    assert find_checkpoint(f"{URL}/global_step3") == path


def test_a_chunk_comes_by_one_request_and_no_file_as_a_whole(requests: Requests) -> None:
    chunks = len(take_snapshot(fake_engine(seed=1), iteration=1, run_state={}).tensors)
    pieces = sum(len(tensor.pieces) for tensor in fake_engine(seed=1).tensors.values())
    saved(3)
    requests.made.clear()
    loaded()
    fetched = [key for key in requests.of("cat_file") if key.endswith(".distcp")]
    assert chunks <= len(fetched) <= pieces


def test_an_answer_that_is_too_short_is_asked_for_again_and_then_an_error(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(3) / "state.json"
    content, read, answers = path.read_bytes(), StoredObject.read, [1]

    def cut(self: StoredObject, start: int, end: int) -> bytes:
        return read(self, start, end)[: -answers.pop() if answers else None]

    monkeypatch.setattr(StoredObject, "read", cut)
    assert ranges.RangeFile(path, 0, len(content)).readall() == content
    answers += [1] * 9
    with pytest.raises(OSError, match=f"{len(content) - 1} bytes came where {len(content)} were asked for"):
        ranges.RangeFile(path, 0, len(content)).readall()


def test_a_large_chunk_is_held_a_window_at_a_time(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(3)
    fetched = []
    fetch = ranges.RangeFile._fetch

    def noted(self: ranges.RangeFile, start: int, end: int) -> memoryview:
        fetched.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(ranges, "WINDOW_BYTES", 100)
    monkeypatch.setattr(ranges.RangeFile, "_fetch", noted)
    assert loaded()[0].holds(VALUES)
    assert max(fetched) == 100


def test_the_manifest_is_written_last_and_deleted_first(requests: Requests) -> None:
    saved(3)
    written = [key for method, key in requests.made if method in ("pipe_file", "put_file")]
    assert written[-2:] == [MANIFEST.format(3), "run/latest"]
    assert len(set(written)) == len(written)
    requests.made.clear()
    saved(3)
    changes = [made for made in requests.made if made[0] != "cat_file"]
    assert changes[0] == ("rm_file", MANIFEST.format(3))
    assert loaded()[0].holds(VALUES)


def test_an_earlier_checkpoint_stays_until_its_successor_is_staged(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(3)
    monkeypatch.setattr("megatron.checkpointing.remote.write.write_tensors", lambda *_: os.listdir("/not/there"))
    with pytest.raises(OSError, match="/not/there"):
        saved(3)
    assert loaded()[1] == "global_step3"


def test_a_half_uploaded_checkpoint_does_not_count_and_the_next_save_deletes_it(requests: Requests) -> None:
    saved(2)

    def dead(method: str, key: str) -> None:
        if key == "global_step4/state.json":
            raise KeyboardInterrupt

    requests.fail = dead
    with pytest.raises(KeyboardInterrupt):
        saved(4)
    requests.fail = lambda method, key: None
    assert [found.iteration for found in list_checkpoints(URL)] == [2]
    assert loaded()[1] == "global_step2"
    assert "global_step4 is not a complete checkpoint: it has no manifest.json" in describe_directory(place(URL))
    saved(6)
    assert sorted(entry.name for entry in place(URL).iterdir()) == ["global_step2", "global_step6", "latest"]


def test_what_another_process_is_uploading_stays_for_an_hour(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = begin(place(f"{URL}/global_step4"))
    temporaries.release(mark)
    elsewhere = mark.with_name(re.sub("@.*@", "@elsewhere@1@", mark.name, count=1))
    elsewhere.write_bytes(b"")
    mark.unlink()
    saved(6)
    assert (place(URL) / "global_step4").exists()
    monkeypatch.setattr("megatron.checkpointing.remote.publish.IDLE_SECONDS", -1.0)
    saved(8)
    assert not (place(URL) / "global_step4").exists()


def test_a_complete_checkpoint_stays_whose_uploader_died_before_it_took_its_mark_away(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary_path(saved(2), "upload").write_bytes(b"")
    monkeypatch.setattr("megatron.checkpointing.remote.publish.IDLE_SECONDS", -1.0)
    saved(4)
    assert [found.iteration for found in list_checkpoints(URL)] == [2, 4]


def test_latest_is_followed_and_a_damaged_checkpoint_passed_over(
    requests: Requests, caplog: pytest.LogCaptureFixture
) -> None:
    saved(2, 4)
    assert read_latest(place(URL)) == 4
    (place(URL) / "global_step4" / "state.json").write_bytes(b"{}")
    assert loaded()[1] == "global_step2"
    assert f"{URL}/global_step4/state.json has 2 bytes and was written with" in caplog.text
    with pytest.raises(CheckpointError, match="holds no checkpoint of iteration 3: complete checkpoints: global_step2"):
        load_checkpoint(URL, fake_engine(), iteration=3)


def test_retention_keeps_the_newest(requests: Requests) -> None:
    saved(1, 2, 3)
    requests.made.clear()
    assert [path.name for path in prune_checkpoints(URL, keep_last=1)] == ["global_step1", "global_step2"]
    assert next(key for key in requests.of("rm_file") if "step1" in key) == MANIFEST.format(1)
    assert [path.path.name for path in list_checkpoints(URL)] == ["global_step3"]


def test_a_checkpoint_that_cannot_be_deleted_is_a_warning(requests: Requests, caplog: pytest.LogCaptureFixture) -> None:
    saved(1, 2)

    def denied(method: str, key: str) -> None:
        if method.startswith("rm"):
            raise PermissionError("Access Denied")

    requests.fail = denied
    assert prune_checkpoints(URL, keep_last=1) == []
    assert "global_step1 is no longer needed but cannot be deleted (Access Denied)" in caplog.text


@pytest.mark.parametrize("verification", ["fast", "full"])
def test_a_store_that_is_away_when_old_checkpoints_should_go_is_a_warning(
    requests: Requests, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, verification: Verification
) -> None:
    saved(1, 2)

    class EndpointConnectionError(Exception):
        """No OSError, as that of S3's client."""

    def away(*_: object) -> None:
        raise EndpointConnectionError("Could not connect to the endpoint")

    with monkeypatch.context() as patch:
        patch.setattr(retention, "list_checkpoints", away)
        assert prune_checkpoints(URL, keep_last=1, verification=verification) == []
    assert f"nothing is deleted in {URL}, which cannot be read (Could not connect to the endpoint)" in caplog.text
    assert [found.iteration for found in list_checkpoints(URL)] == [1, 2]


def test_what_a_store_refuses_now_and_then_is_tried_again(requests: Requests) -> None:
    refused: dict[tuple[str, str], int] = {}

    def flaky(method: str, key: str) -> None:
        refused[method, key] = refused.get((method, key), 0) + 1
        if refused[method, key] <= 3 and not key.startswith("run/.tmp"):
            raise ConnectionResetError("Connection reset by peer")

    requests.fail = flaky
    saved(3)
    requests.fail = lambda method, key: flaky(method, key) if key.endswith(".distcp") else None
    assert loaded()[0].holds(VALUES)
    assert max(refused.values()) >= 4


def test_a_store_that_refuses_for_good_is_one_sentence(requests: Requests) -> None:
    saved(1)

    def broken(method: str, key: str) -> None:
        if method == "put_file":
            raise ConnectionResetError("Connection reset by peer")

    requests.fail = broken
    with pytest.raises(CheckpointError) as caught:
        saved(3)
    message = str(caught.value)
    assert message.startswith(f"saving {URL}/global_step3 by way of ")
    assert " failed: Connection reset by peer (on host " in message
    requests.fail = lambda method, key: None
    assert loaded()[1] == "global_step1"


def test_a_small_file_that_arrived_otherwise_is_found_before_the_manifest(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = StoredObject.write
    monkeypatch.setattr(StoredObject, "write", lambda self, content: write(self, content.replace(b"7", b"8")))
    with pytest.raises(CheckpointError, match=r"state\.json has changed since it was written"):
        saved(3)
    assert list_checkpoints(URL) == []


def test_a_file_that_arrived_otherwise_is_found_before_the_manifest(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fake_engine(seed=1).fill(VALUES)

    def corrupted(flip: bool) -> None:
        def upload(self: StoredObject, source: Path, *, chunk_bytes: int) -> None:
            content = bytearray(source.read_bytes())
            content[len(content) // 2] ^= 1
            self.write(bytes(content if flip else content[:-1]))

        monkeypatch.setattr(StoredObject, "upload", upload)

    def write(how: Upload) -> None:
        write_snapshot(URL, take_snapshot(engine, iteration=3, run_state={}), group=SINGLE, upload=how)

    corrupted(flip=False)
    with pytest.raises(CheckpointError, match=r"__0_0\.distcp has \d+ bytes and was written with \d+"):
        write(Upload())
    corrupted(flip=True)
    with pytest.raises(CheckpointError, match=r"\.distcp has changed since it was written"):
        write(Upload(verification="full"))
    assert list_checkpoints(URL) == []


def test_staging_of_a_dead_run_is_removed_by_the_next_save(requests: Requests, tmp_path: Path) -> None:
    staging = tmp_path / "staging" / f"checkpoints-of-{os.getuid()}"
    saved(1)
    left = temporaries.temporary_path(staging, "global_step9")
    left.mkdir()
    (left / "__0_0.distcp").write_bytes(b"half")
    saved(2)
    assert list(staging.iterdir()) == []


def test_writing_is_tried_before_training(requests: Requests) -> None:
    check_can_save(URL, group=SINGLE)
    assert [path.name for path in place(URL).iterdir()] == [".owner.json"]

    def denied(method: str, key: str) -> None:
        raise PermissionError("Access Denied")

    requests.fail = denied
    with pytest.raises(
        CheckpointError, match=f"^{URL} cannot be reached: access is denied .*Access Denied.*; check the"
    ):
        check_can_save(URL, group=SINGLE)


def test_nothing_to_load_and_a_store_that_does_not_answer_are_told_apart(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_checkpoint(URL, fake_engine(), if_exists=True) is None
    with pytest.raises(CheckpointError, match=f"no checkpoint to load in {URL}: the directory does not exist"):
        load_checkpoint(URL, fake_engine())

    class EndpointConnectionError(Exception):
        pass

    def unreachable(*_: object, **__: object) -> None:
        raise EndpointConnectionError("Could not connect")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.info", unreachable)
    for if_exists in (False, True):
        with pytest.raises(CheckpointError, match=f"^{URL} cannot be reached: EndpointConnectionError: Could not"):
            load_checkpoint(URL, fake_engine(), if_exists=if_exists)
    with pytest.raises(CheckpointError, match=f"^{URL} cannot be reached: "):
        find_checkpoint(URL)


def test_removing_what_is_not_there_is_no_error(requests: Requests) -> None:
    remove_checkpoint(place(f"{URL}/global_step1"))
