"""tools/ckpts/upload.py against a hub on this machine: what the hub holds afterwards, at every failure on the way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from megatron.cli.styled import show_lines
from megatron.conversion.hub import failures as hub_failures
from megatron.conversion.hub.directory import model_directory
from megatron.conversion.uploading.command import run
from megatron.conversion.uploading.parser import MESSAGE, parse_arguments
from megatron.errors import CheckpointError
from tests.conftest import REPOSITORY
from tests.hub_server import TOKEN, Fault, HubServer, Repository, local_hub
from tests.unit.conversion.uploading.exported import FILES, write_model

Upload = Callable[..., str]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty hub; no waiting between tries."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with local_hub(tmp_path / "cache") as server:
        yield server


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def upload(capsys: pytest.CaptureFixture[str]) -> Upload:
    """Runs the command with some words; what it printed."""

    def call(*words: object) -> str:
        assert run(parse_arguments([str(word) for word in words]), show_lines) == 0
        return capsys.readouterr().out

    return call


def refusal(upload: Upload, *words: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        upload(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(model: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in model.iterdir()}


def held(repository: Repository, branch: str = "main") -> dict[str, bytes]:
    """What a repository holds of a model."""
    return {
        name: data for name, data in repository.files(branch).items() if name not in (".gitattributes", "README.md")
    }


def test_a_dry_run_shows_what_there_is_and_asks_nobody(hub: HubServer, model: Path, upload: Upload) -> None:
    said = upload(model, "org/name", "--create", "--dry-run")
    assert said.startswith(f"{model} -> org/name\n")
    assert re.search(r"model\.safetensors +7\n", said)
    total = sum(len(data) for data in written(model).values())
    assert re.search(rf"total +{total}\n", said)
    assert "README.md  written from the report" in said
    assert hub.requests == []
    assert not (model / "README.md").exists()


def test_a_model_is_there_with_one_commit_and_comes_back(hub: HubServer, model: Path, upload: Upload) -> None:
    said = upload(model, "org/name", "--create")
    repository = hub.repositories["org/name"]
    assert not repository.private
    assert held(repository) == written(model)
    first, last = repository.commits
    assert list(repository.commits[first]) == [".gitattributes"]
    assert repository.messages[last] == MESSAGE
    assert f"uploaded: {hub.address}/org/name/commit/{last}" in said
    found = model_directory("hf:org/name")
    assert {path.name: path.read_bytes() for path in found.iterdir()} == written(model)
    said = upload(model, "org/name")
    assert f"nothing has changed: this is already there, at commit {last}" in said
    assert len(repository.commits) == 2


def test_the_card_tells_what_the_report_tells(hub: HubServer, tmp_path: Path, upload: Upload) -> None:
    upload(write_model(tmp_path / "a"), "org/name", "--create")
    card = hub.repositories["org/name"].files()["README.md"].decode()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "\n# name\n" in card
    assert "`LlamaForCausalLM` of transformers" in card
    assert "converted from:\n\n* iteration: 1,000\n* parameters: 12,345\n" in card
    assert "they are equal. What was measured:\n\n* largest of an output: 1.25e-06\n* allowed: 0.0001\n" in card
    assert "secret" not in card
    upload(write_model(tmp_path / "b", equal=False), "org/other", "--create", "--unproven")
    card = hub.repositories["org/other"].files()["README.md"].decode()
    assert "Nothing proves that the converted model computes the same" in card


def test_a_card_that_somebody_wrote_stays(hub: HubServer, model: Path, upload: Upload) -> None:
    repository = hub.add("org/name", {"README.md": b"mine"})
    upload(model, "org/name")
    assert repository.files()["README.md"] == b"mine"
    (model / "README.md").write_bytes(b"---\nlicense: mit\n---\nnewer")
    assert "README.md  written" not in upload(model, "org/name")
    assert repository.files()["README.md"].endswith(b"newer")


def test_files_of_an_earlier_model_go_in_the_same_commit(hub: HubServer, model: Path, upload: Upload) -> None:
    stale = {"model.safetensors.index.json": b"{}", "model-00001-of-00001.safetensors": b"old", "vocab.json": b"{}"}
    repository = hub.add("org/name", {**stale, "LICENSE": b"mine", "onnx/model.safetensors": b"theirs"})
    said = upload(model, "org/name")
    assert f"deleted files of an earlier model: {', '.join(sorted(stale))}" in said
    assert held(repository) == {**written(model), "LICENSE": b"mine", "onnx/model.safetensors": b"theirs"}
    assert len(repository.commits) == 2


def test_repositories_and_branches_are_created_when_asked(hub: HubServer, model: Path, upload: Upload) -> None:
    assert "shows no model org/name (with the token that is set): correct the name, add --create" in refusal(
        upload, model, "org/name"
    )
    upload(model, "org/name", "--create", "--private", "--branch", "step10", "--message", "ten steps")
    repository = hub.repositories["org/name"]
    assert repository.private
    assert held(repository, "step10") == written(model)
    assert repository.messages[repository.branches["step10"]] == "ten steps"
    assert held(repository) == {}
    assert 'has no branch "step20" (there is main, step10): add --create' in refusal(
        upload, model, "org/name", "--branch", "step20"
    )
    upload(model, "org/name", "--branch", "step20", "--create")
    assert held(repository, "step20") == written(model)


def test_what_was_meant_to_be_private_is_not_put_where_all_can_see_it(
    hub: HubServer, model: Path, upload: Upload
) -> None:
    repository = hub.add("org/name")
    assert "exists and everybody can see it" in refusal(upload, model, "org/name", "--create", "--private")
    assert held(repository) == {}


BUSY = [
    ("GET", "/api/models/org/name"),
    ("POST", "/api/repos/create"),
    ("POST", "/api/validate-yaml"),
    ("POST", "/branch/"),
    ("POST", "/preupload/"),
    ("POST", "/lfs/objects/batch"),
    ("PUT", "/large/"),
    ("POST", "/commit/"),
]


@pytest.mark.parametrize("before", [True, False], ids=["asked", "done"])
def test_a_hub_that_is_busy_once_at_every_step_is_survived(
    hub: HubServer, model: Path, upload: Upload, before: bool
) -> None:
    hub.faults = [Fault(method, path, before=before) for method, path in BUSY]
    upload(model, "org/name", "--create", "--branch", "step10")
    assert hub.faults == []
    repository = hub.repositories["org/name"]
    assert held(repository, "step10") == written(model)
    assert len(repository.commits) == 2, "one commit, although its answer was lost"


@pytest.mark.parametrize(("method", "path"), BUSY[4:])
def test_an_upload_that_fails_leaves_the_branch_as_it_was(
    hub: HubServer, model: Path, upload: Upload, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_failures, "WAITS", (1.0,))
    repository = hub.add("org/name", FILES)
    (model / "conversion_report.json").unlink()
    (model / "model.safetensors").write_bytes(b"better weights")
    hub.faults = [Fault(method, path)] * 99
    said = refusal(upload, model, "org/name", "--unproven")
    assert said == f"{hub.address} gives no answer (503 Service Unavailable): try again later"
    assert held(repository) == FILES
    hub.faults = []
    upload(model, "org/name", "--unproven")
    assert held(repository)["model.safetensors"] == b"better weights"


def test_what_somebody_else_commits_meanwhile_is_not_overwritten(hub: HubServer, model: Path, upload: Upload) -> None:
    repository = hub.add("org/name")

    def commit(method: str, path: str) -> None:
        if "/commit/" in path and len(repository.commits) == 1:
            repository.commit({"config.json": b"theirs"})

    hub.meanwhile = commit
    assert "somebody else has changed org/name meanwhile" in refusal(upload, model, "org/name")
    assert repository.files() == {"config.json": b"theirs"}
    upload(model, "org/name")
    assert held(repository) == written(model)


def test_what_the_hub_refuses_is_said_in_one_sentence(
    hub: HubServer, model: Path, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/name")
    hub.faults = [Fault("POST", "/commit/", 403)]
    assert "does not let you write to org/name (with the token that is set)" in refusal(upload, model, "org/name")
    hub.faults = [Fault("POST", "/commit/", 413)]
    assert f"{hub.address} refused: something went wrong here" in refusal(upload, model, "org/name")
    with monkeypatch.context() as patch:
        patch.setattr(HfApi, "create_commit", _broken_store)
        assert "moving large files failed (Network error: 404)" in refusal(upload, model, "org/name")
    with monkeypatch.context() as patch:
        patch.delenv("HF_TOKEN")
        assert "does not let you write to org/name (HF_TOKEN is not set)" in refusal(upload, model, "org/name")
    hub.close()
    assert f"{hub.address} gives no answer" in refusal(upload, model, "org/name")
    assert '"org/a/b" is no name of a repository' in refusal(upload, model, "org/a/b")


def _broken_store(*arguments: object, **settings: object) -> None:
    raise OSError("Network error: 404")  # as hf_xet raises it


def test_the_tool_finds_the_hub_and_the_account_in_the_environment(hub: HubServer, model: Path) -> None:
    command = [sys.executable, REPOSITORY / "tools" / "ckpts" / "upload.py", model, "org/name"]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run([*command, "--create"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert held(hub.repositories["org/name"]) == written(model)
    (model / "config.json").unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"{model} has no config.json: give a directory that convert_neox_to_hf.py has written\n"
