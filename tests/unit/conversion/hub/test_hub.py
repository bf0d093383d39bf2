"""Models by name: directories here, and models of a hub on this machine, through the client that asks the real one."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from huggingface_hub import constants

from megatron.conversion.hub import cache as hub_cache
from megatron.conversion.hub import directory as hub_module
from megatron.conversion.hub.directory import model_directory
from megatron.conversion.hub.names import HubName, is_hub_name, parse_hub_name
from megatron.errors import CheckpointError
from megatron.mpu.groups import Group
from tests.hub_server import Fault, HubServer, local_hub
from tests.worlds import error_of, run_world

PARTS = {"model-00001-of-00002.safetensors": b"A" * 5000, "model-00002-of-00002.safetensors": b"B"}
INDEX = json.dumps({"weight_map": dict.fromkeys("ab", next(iter(PARTS))) | {"c": list(PARTS)[1]}}).encode()
SMALL = {"config.json": b'{"a": 1}', "tokenizer.json": b"{}", "model.safetensors.index.json": INDEX}
MODEL = {**SMALL, **PARTS}
BESIDES = {"pytorch_model.bin": b"torch", "modeling_x.py": b"x", "README.md": b"x", "onnx/model.safetensors": b"x"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with the model org/divided; no waiting between tries."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with local_hub(tmp_path / "cache") as server:
        server.add("org/divided", {**MODEL, **BESIDES})
        yield server


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def refusal(text: str) -> str:
    """What is said about a name that no model has."""
    with pytest.raises(CheckpointError) as caught:
        model_directory(text)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_names_are_told_apart() -> None:
    assert is_hub_name("hf:org/name")
    assert not is_hub_name("checkpoints/hf")
    assert parse_hub_name("hf:gpt2") == HubName("gpt2")
    assert parse_hub_name("hf:org/name@refs/pr/3") == HubName("org/name", "refs/pr/3")


def test_a_directory_that_exists_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    here = tmp_path / "org" / "name@main"
    here.mkdir(parents=True)
    assert model_directory("hf:org/name@main") == Path("org/name@main")
    assert model_directory("hf:~/org/name@main") == here
    assert model_directory(f"hf:{here}") == here


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hf:", "names no model"),
        ("hf:/nowhere/at/all", "there is no directory /nowhere/at/all"),
        ("hf:org/name@", "write a branch, a tag or a commit"),
        ("hf://org/name", "ORGANISATION/NAME"),
        (f"hf:{__file__}", f"is a file: give the directory it lies in, hf:{Path(__file__).parent}"),
    ],
)
def test_what_can_be_no_name_is_refused_without_asking(text: str, said: str) -> None:
    assert said in refusal(text)


def test_the_files_of_the_model_are_downloaded_once(hub: HubServer) -> None:
    found = model_directory("hf:org/divided")
    assert contents(found) == MODEL
    assert found.name == hub.repositories["org/divided"].branches["main"]
    hub.requests.clear()
    assert model_directory("hf:org/divided@main") == found
    assert not hub.asked("GET", "/resolve/")
    hub.requests.clear()
    assert model_directory(f"hf:org/divided@{found.name}") == found
    assert hub.requests == []


def test_weights_of_torch_are_taken_where_there_are_no_others(hub: HubServer) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"x", "tf_model.h5": b"x"}
    hub.add("org/torch", files)
    del files["tf_model.h5"]
    assert contents(model_directory("hf:org/torch")) == files


def test_a_whole_file_is_preferred_to_a_divided_one(hub: HubServer) -> None:
    hub.add("org/both", {**MODEL, "model.safetensors": b"whole"})
    assert contents(model_directory("hf:org/both")) == {**SMALL, "model.safetensors": b"whole"}


def test_a_branch_is_another_model_and_a_new_commit_is_seen(hub: HubServer) -> None:
    repository = hub.repositories["org/divided"]
    first = model_directory("hf:org/divided")
    repository.commit({"config.json": b"{}", "model.safetensors": b"1"}, branch="step/1")
    assert contents(model_directory("hf:org/divided@step/1"))["model.safetensors"] == b"1"
    repository.commit({"config.json": b"{}", "model.safetensors": b"2"})
    assert contents(model_directory("hf:org/divided"))["model.safetensors"] == b"2"
    assert contents(model_directory(f"hf:org/divided@{first.name}")) == MODEL


def test_private_and_gated_models_need_a_token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/private", MODEL, private=True)
    hub.add("org/gated", MODEL, gated=True)
    with monkeypatch.context() as patch:
        patch.delenv("HF_TOKEN")
        said = refusal("hf:org/private")
        assert "shows no model org/private (HF_TOKEN is not set)" in said
        assert "there is no directory org/private here" in said
        said = refusal("hf:org/gated")
        assert f"accept its conditions at {hub.address}/org/gated and set HF_TOKEN" in said
        patch.setenv("HF_TOKEN", "hf_wrong")
        assert "does not accept the token" in refusal("hf:org/divided")
    for name in ("private", "gated"):
        assert contents(model_directory(f"hf:org/{name}")) == MODEL


def test_what_is_not_there_is_said_in_one_sentence(hub: HubServer) -> None:
    assert "shows no model org/dividde (with the token that is set)" in refusal("hf:org/dividde")
    hub.repositories["org/divided"].commit(MODEL, branch="v2")
    assert 'has no revision "v3": there is main, v2, or a commit' in refusal("hf:org/divided@v3")
    hub.add("org/adapter", {"config.json": b"{}", "adapter_model.safetensors": b"x"})
    assert "has no weights of a kind that is read (model.safetensors or pytorch_model.bin" in refusal("hf:org/adapter")
    assert "adapter_model.safetensors" in refusal("hf:org/adapter")
    hub.add("org/weights", {"model.safetensors": b"x"})
    assert "has no config.json" in refusal("hf:org/weights")
    hub.add("org/torn", {name: MODEL[name] for name in MODEL if "00002-of" not in name})
    assert "lacks model-00002-of-00002.safetensors, which its model.safetensors.index.json lists" in refusal(
        "hf:org/torn"
    )
    hub.add("org/index", {"config.json": b"{}", "model.safetensors.index.json": b"[]"})
    assert "model.safetensors.index.json is no index of weights" in refusal("hf:org/index")


def test_a_model_that_does_not_fit_is_not_begun(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(9, 0, 5000))
    assert f"{constants.HF_HUB_CACHE}, where 0 MiB are free: free some room, or set HF_HOME" in refusal(
        "hf:org/divided"
    )
    assert not hub.asked("GET", "of-00002")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(9, 0, 5001))
    with monkeypatch.context() as patch:  # others write there too
        patch.setattr(hub_cache, "snapshot_download", _disk_full)
        assert f"{constants.HF_HUB_CACHE} is full: org/divided does not fit" in refusal("hf:org/divided")
    model_directory("hf:org/divided")


def _disk_full(*arguments: object, **settings: object) -> str:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/org/divided"),
        ("GET", "/tree/"),
        ("HEAD", "/resolve/"),
        ("GET", "/resolve/"),
        ("GET", "model-00001"),
    ],
)
def test_a_hub_that_is_busy_once_is_asked_again(hub: HubServer, method: str, path: str) -> None:
    hub.faults.append(Fault(method, path))
    assert contents(model_directory("hf:org/divided")) == MODEL
    assert hub.faults == []


def test_without_a_hub_the_model_in_the_cache_is_taken(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = model_directory("hf:org/divided")
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert model_directory("hf:org/divided") == found
        said = refusal("hf:org/other")
        assert f"org/other is not, or not wholly, in the cache {constants.HF_HUB_CACHE}" in said
        assert "HF_HUB_OFFLINE forbids" in said
        assert "`hf download org/other --local-dir DIR`" in said
    hub.faults = [Fault("GET", "/api/models/org/divided")] * 5
    assert model_directory("hf:org/divided") == found
    assert f"org/divided as it was downloaded earlier, commit {found.name}" in caplog.text
    hub.close()
    assert model_directory("hf:org/divided") == found
    assert f"{hub.address} gives no answer" in refusal("hf:org/other")
    (found / "model-00002-of-00002.safetensors").unlink()
    assert "org/divided is not, or not wholly, in the cache" in refusal("hf:org/divided")


def test_a_cache_that_other_programs_have_filled_is_taken(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model_directory("hf:org/divided").parents[2], tmp_path / "other", symlinks=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    # What belongs to the commit is not known any more.
    shutil.rmtree(tmp_path / "other" / "models--org--divided" / "trees")
    found = model_directory("hf:org/divided")
    assert found.is_relative_to(tmp_path / "other")
    (found / "model-00002-of-00002.safetensors").unlink()
    assert f"org/divided in the cache {tmp_path / 'other'} lacks model-00002-of" in refusal("hf:org/divided")


def test_a_process_that_sees_another_cache_says_so(hub: HubServer) -> None:
    with pytest.raises(
        CheckpointError, match=r"does not hold model-00001-of-00002\.safetensors of org/divided.*HF_HOME"
    ):
        hub_cache.directory_of(hub_cache.find_snapshot(HubName("org/divided")))


def test_one_process_of_each_node_downloads(hub: HubServer, tmp_path: Path) -> None:
    results = run_world(4, _two_nodes, str(tmp_path))
    commit = hub.repositories["org/divided"].branches["main"]
    cache = f"models--org--divided/snapshots/{commit}"
    assert [directory for directory, *_ in results] == [str(tmp_path / f"node{node}" / cache) for node in (0, 0, 1, 1)]
    for part in PARTS:  # by two nodes, and again by the one that has room in another cache
        assert len(hub.asked("GET", part)) == 3
    # Which commit the branch is at was asked by one process, twice each time.
    asked = [path for path in hub.asked("GET", "/api/models/org/divided") if "/tree/" not in path]
    assert len(asked) == 4
    for _, missing, full, hidden in results:
        assert missing == results[0][1]
        assert "shows no model org/missing" in missing
        assert full == results[0][2]
        assert "where 0 MiB are free" in full
        assert hidden == results[0][3]
        assert "is not visible here: all nodes must share its file system" in hidden


def _two_nodes(rank: int, place: str) -> tuple[str, str, str, str]:
    node, local_rank = divmod(rank, 2)
    group = Group(rank, 4, (0, 1, 2, 3), dist.group.WORLD)
    if local_rank:
        hub_module.download = None  # which whoever downloads here would meet
    constants.HF_HUB_CACHE = f"{place}/node{node}"
    found = model_directory("hf:org/divided", group=group, local_rank=local_rank)
    missing = error_of(lambda: model_directory("hf:org/missing", group=group, local_rank=local_rank))
    constants.HF_HUB_CACHE = f"{place}/other{node}"
    if node == 1:
        hub_cache.shutil.disk_usage = lambda path: namedtuple("usage", "free")(0)
    full = error_of(lambda: model_directory("hf:org/divided", group=group, local_rank=local_rank))
    if node == 1:
        Path.is_dir = lambda self: False
    hidden = error_of(lambda: model_directory(f"hf:{place}", group=group, local_rank=local_rank))
    return str(found), missing, full, hidden
