"""The command, in this process: what it prints and its exit status."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from megatron.checkpointing.inspecting.command import run
from megatron.checkpointing.inspecting.parser import parse_arguments
from megatron.checkpointing.places import place
from megatron.cli.styled import show_lines
from megatron.errors import CheckpointError
from tests.unit.checkpointing.inspecting.saved import PARAMETERS, damage, random_values, save_run

Inspect = Callable[..., tuple[int, str]]


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Inspect:
    """Runs the command with some words; its exit status and what it printed."""

    def call(*words: object) -> tuple[int, str]:
        status = run(parse_arguments([str(word) for word in words]), show_lines)
        return status, capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of other values."""
    directory = tmp_path_factory.mktemp("run")
    save_run(directory, random_values(1), iteration=3)
    save_run(directory, iteration=5)
    return directory


def test_a_directory_shows_the_checkpoint_that_loading_takes(inspect: Inspect, directory: Path) -> None:
    status, said = inspect(directory)
    assert status == 0
    assert said.startswith(f"checkpoints in {directory}\n")
    assert f"\n{directory}/global_step5\n" in said
    weight = random_values()["2.mlp.linear1.weight/weight"]
    assert f"{float(weight.norm()):.4g}" in said
    assert "logical sha" not in said
    assert f"\n{directory}/global_step3\n" in inspect(directory, "--iteration", 3, "--no-values")[1]


def test_a_checkpoint_shows_itself_alone(inspect: Inspect, directory: Path) -> None:
    said = inspect(directory / "global_step3", "--digest")[1]
    assert said.startswith(f"{directory}/global_step3\n")
    assert "logical sha" in said
    report = json.loads(inspect(directory / "global_step3", "--json", "--no-values")[1])
    assert "checkpoints" not in report
    assert report["tensors"]["10.norm.scale/weight"] == {"shape": [], "dtype": "float32"}


def test_a_store_is_read_as_a_directory_is(inspect: Inspect, directory: Path) -> None:
    url = "memory://bucket/inspected"
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            place(f"{url}/{path.relative_to(directory)}").write_bytes(path.read_bytes())
    local, remote = (json.loads(inspect(where, "--json", "--digest")[1]) for where in (directory, url))
    assert remote["checkpoint"] == f"{url}/global_step5"
    for report in (local, remote):
        del report["checkpoint"], report["checkpoints"]
    assert remote == local
    assert inspect(url, "--verify")[0] == 0
    assert inspect("--compare", url, directory)[0] == 0


def test_single_tensors_are_shown_with_their_first_values(inspect: Inspect, directory: Path) -> None:
    said = inspect(directory, "--tensor", "2.attention.dense.bias/weight", "10.*")[1]
    values = random_values()["2.attention.dense.bias/weight"].tolist()
    assert f"first values  {', '.join(f'{value:.6g}' for value in values)}\n" in said
    assert said.count("first values") == 4
    report = json.loads(inspect(directory, "--json", "--tensor", "*linear1.weight/weight")[1])
    (tensor,) = report["tensors"]
    assert tensor["first_values"] == random_values()["2.mlp.linear1.weight/weight"].view(-1)[:8].tolist()
    with pytest.raises(CheckpointError, match="did you mean"):
        inspect(directory, "--tensor", "2.attention.dense.bais")


def test_verifying_names_what_is_wrong_and_fails(inspect: Inspect, directory: Path, tmp_path: Path) -> None:
    assert inspect(directory, "--verify")[0] == 0
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    damaged = damage(copy / "global_step3")
    status, said = inspect(copy, "--verify")
    assert status == 1
    assert said.splitlines() == [
        f"{damaged} has changed since it was written (its SHA-256 differs)",
        f"{copy}/global_step5: every file is as it was written",
    ]
    status, said = inspect(copy, "--verify", "--json", "--iteration", 5)
    assert (status, json.loads(said)) == (0, {f"{copy}/global_step5": []})


def test_comparing_fails_on_a_difference(inspect: Inspect, directory: Path, tmp_path: Path) -> None:
    same = save_run(tmp_path, iteration=5, seed=4)
    assert inspect("--compare", directory, same)[0] == 0
    status, said = inspect("--compare", directory, directory / "global_step3")
    assert status == 1
    assert "0.word_embeddings.weight/exp_avg[0, 0]: " in said
    assert said.splitlines()[-1].startswith("different")
    status, said = inspect("--compare", directory, same, "--json", "--tolerance", "0.5")
    assert (status, json.loads(said)["equal"]) == (0, True)


def test_weights_are_consolidated(inspect: Inspect, directory: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    assert "equal to the bit" in inspect(directory, "--consolidate", output, "--dtype", "bf16")[1]
    found = load_file(output)
    assert {name: tensor.dtype for name, tensor in found.items()} == dict.fromkeys(PARAMETERS, torch.bfloat16)
    with pytest.raises(CheckpointError, match="--force"):
        inspect(directory, "--consolidate", output)
    report = json.loads(inspect(directory, "--consolidate", output, "--force", "--optimizer", "--json")[1])
    assert (report["bytes"], len(load_file(output))) == (output.stat().st_size, 3 * len(PARAMETERS))


def test_what_is_no_checkpoint_is_told(inspect: Inspect, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the directory does not exist"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        inspect(tmp_path, "--verify")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "a --compare b c",
        "a --force",
        "a --dtype bf16",
        "a --optimizer",
        "a --tolerance 1",
        "--compare a b --tolerance -1",
        "--compare a b --tolerance x",
        "a --digest --no-values",
        "a --verify --digest",
        "a --iteration -3",
        "a --verify --tensor x",
    ],
)
def test_options_that_do_not_go_together_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parse_arguments(words.split())
    assert error.value.code == 2
    assert "error: " in capsys.readouterr().err
