"""Checkpoints in S3 (moto's server): written and read by forked ranks that share nothing but the store, killed, refused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron.checkpointing.layout import list_checkpoints, read_latest
from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.places import place
from megatron.checkpointing.remote.objects import StoredObject
from megatron.checkpointing.remote.publish import Upload
from megatron.checkpointing.remote.upload import upload_checkpoint
from megatron.checkpointing.saving.background import in_background
from megatron.checkpointing.saving.save import check_can_save, save_checkpoint, take_snapshot, write_snapshot
from megatron.engine.protocol import FullTensor, Piece
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE, Group
from tests.object_store import ObjectStore, object_store
from tests.unit.checkpointing.fakes import SHAPES, FakeEngine, fake_engine, full_values, killed
from tests.worlds import run_world

EMBEDDINGS = "0.word_embeddings.weight/weight"
LARGE = {**SHAPES, EMBEDDINGS: (5_600, 1_000)}  # 22 MB, of which either rank writes more than 10 MiB
HOW = Upload(chunk_bytes=5 << 20, verification="full")
VALUES = full_values(1, LARGE)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture(autouse=True)
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def group_of(rank: int) -> Group:
    size = dist.get_world_size()
    return Group(rank, size, tuple(range(size)), dist.new_group(backend="gloo"))


def loads_exactly(directory: str, rank: int, world: Group) -> bool:
    target = fake_engine(LARGE, seed=7, rank=rank, world=world)
    found = load_checkpoint(directory, target, verification="full")
    assert found is not None
    return found.run_state == {"a": 1} and target.holds(VALUES)


def halves(rank: int, world: Group) -> FakeEngine:
    """An engine of which either rank holds one half of the large tensor."""
    engine = fake_engine(LARGE, seed=3, rank=rank, world=world)
    half = Piece((2_800 * rank, 0), torch.zeros(2_800, 1_000))
    engine.tensors[EMBEDDINGS] = FullTensor(LARGE[EMBEDDINGS], (half,))
    return engine.fill(VALUES)


def save_beside_and_upload(rank: int, directory: str, copies: str, local: Path) -> dict[str, Any]:
    group = group_of(rank)
    engine = halves(rank, group)
    check_can_save(directory, group=group)
    snapshot = take_snapshot(engine, iteration=3, run_state={"a": 1}, config_yaml="x: 1\n")
    in_background(lambda: write_snapshot(directory, snapshot, group=group, upload=HOW), name="saving").result()
    checkpoint = save_checkpoint(local, engine, iteration=4, run_state={"a": 1})
    there = upload_checkpoint(checkpoint, copies, group=group, chunk_bytes=5 << 20, verification="full")
    return {"loads": loads_exactly(directory, rank, group), "there": str(there)}


def test_forked_ranks_save_upload_and_load_what_one_process_loads_too(store: ObjectStore, staging: Path) -> None:
    directory, copies = store.directory(), store.directory()
    assert not place(directory).exists()  # this process has its connection, which the ranks must not take over
    results = run_world(2, save_beside_and_upload, directory, copies, staging / "run")
    assert results == [{"loads": True, "there": f"{copies}/global_step4"}] * 2
    assert loads_exactly(copies, 0, Group())
    assert (read_latest(place(directory)), read_latest(place(copies))) == (3, 4)
    facts = store.file_system().find(f"{directory.removeprefix('s3://')}/global_step3", detail=True)
    parts = {key.rpartition("/")[2]: info["ETag"].strip('"').partition("-")[2] for key, info in facts.items()}
    assert {name: number for name, number in parts.items() if number} == {"__0_0.distcp": "3", "__1_0.distcp": "3"}
    assert sorted(parts) == [
        ".metadata", "__0_0.distcp", "__1_0.distcp", "config.yml", "manifest.json", "state.json"
    ]  # fmt: skip
    assert not list(staging.glob("checkpoints-of-*/*"))


def test_what_a_killed_process_had_begun_to_upload_does_not_count_and_is_removed(
    store: ObjectStore, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = store.directory()
    engine = fake_engine(seed=1).fill(full_values(1))
    save_checkpoint(directory, engine, iteration=2, run_state={})
    upload = StoredObject.upload

    def die(self: StoredObject, source: Path, *, chunk_bytes: int) -> None:
        if source.name != ".metadata":
            upload(self, source, chunk_bytes=chunk_bytes)
            bucket, _, key = self.key.partition("/")
            self.store.call_s3("create_multipart_upload", Bucket=bucket, Key=f"{key}.next")
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(StoredObject, "upload", die)
        assert killed(lambda: save_checkpoint(directory, engine, iteration=4, run_state={}))
    assert [found.iteration for found in list_checkpoints(directory)] == [2]
    files = store.file_system()
    begun = {"Bucket": store.bucket, "Prefix": directory.partition(f"{store.bucket}/")[2]}
    assert files.exists(f"{directory}/global_step4/__0_0.distcp")
    assert len(files.call_s3("list_multipart_uploads", **begun)["Uploads"]) == 1
    assert list(staging.glob("checkpoints-of-*/*"))

    save_checkpoint(directory, engine, iteration=6, run_state={})
    assert sorted(path.name for path in place(directory).iterdir()) == ["global_step2", "global_step6", "latest"]
    assert not files.call_s3("list_multipart_uploads", **begun).get("Uploads")
    assert not list(staging.glob("checkpoints-of-*/*"))


def test_a_store_that_cannot_be_used_is_one_sentence_within_seconds(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    def told(url: str) -> tuple[str, str]:
        s3fs.S3FileSystem.clear_instance_cache()
        sentences = []
        for attempt in (
            lambda: check_can_save(url, group=SINGLE),
            lambda: load_checkpoint(url, fake_engine()),
        ):
            started = time.monotonic()
            with pytest.raises(CheckpointError) as caught:
                attempt()
            assert time.monotonic() - started < 15
            sentences.append(str(caught.value))
        return sentences[0], sentences[1]

    save, load = told("s3://no-such-bucket/run")
    assert save == "s3://no-such-bucket/run cannot be reached: FileNotFoundError: The specified bucket does not exist"
    assert 'the bucket "no-such-bucket" does not exist, or may not be seen' in load
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        for sentence in told(store.directory()):
            assert "cannot be reached: there are no credentials (NoCredentialsError: " in sentence
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        for sentence in told(store.directory()):
            assert "cannot be reached: EndpointConnectionError: Could not connect to the endpoint URL" in sentence
    s3fs.S3FileSystem.clear_instance_cache()
