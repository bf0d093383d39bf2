"""Which variables of deepy.py reach ranks on other machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megatron.errors import ConfigError
from megatron.launcher.agent.options import REPOSITORY
from megatron.launcher.forwarding import forwarded, read_environment_file, remote_environment


def test_variables_of_libraries_are_forwarded_and_those_of_one_machine_are_not() -> None:
    everywhere = {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "4", "HF_HOME": "/hf", "DS_ACCELERATOR": "cpu"}
    at_home = {
        "HOME": "/root",
        "PATH": "/bin",
        "HOSTNAME": "h1",
        "RANK": "0",
        "NEOX_JOB_TOKEN": "x",
        "PYTHONHOME": "/p",
    }
    visible = {"CUDA_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "0", "ROCR_VISIBLE_DEVICES": "0"}
    assert forwarded({**everywhere, **at_home, **visible}) == everywhere


def test_asking_for_the_cpu_holds_on_every_machine() -> None:
    assert forwarded({"CUDA_VISIBLE_DEVICES": ""}) == {"CUDA_VISIBLE_DEVICES": ""}


def test_the_user_names_further_ones() -> None:
    variables = {"MY_A": "1", "MY_B": "2", "OTHER": "3", "CUDA_VISIBLE_DEVICES": "1,0"}
    assert forwarded(variables, ["MY_*", "CUDA_VISIBLE_DEVICES"]) == {
        "MY_A": "1",
        "MY_B": "2",
        "CUDA_VISIBLE_DEVICES": "1,0",
    }


def test_packages_of_the_user_come_after_ours() -> None:
    assert forwarded({"PYTHONPATH": "/theirs"}) == {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}/theirs"}
    assert forwarded({"PYTHONPATH": ""}) == {}


def test_a_file_sets_more_and_wins_and_is_named(tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir(), home.mkdir()
    (home / ".deepspeed_env").write_text("A=home\n")
    given = {"NCCL_DEBUG": "INFO"}
    assert remote_environment(given, directory=here, home=home)[0] == {**given, "A": "home"}
    (here / ".deepspeed_env").write_text("# ours\nA=b = c\n\nexport NCCL_DEBUG=WARN\nEMPTY=\n")
    variables, (note,) = remote_environment(given, directory=here, home=home)
    assert variables == {"A": "b = c", "NCCL_DEBUG": "WARN", "EMPTY": ""}
    assert note == f"environment: A, NCCL_DEBUG, EMPTY from {here}/.deepspeed_env, for every rank"


def test_without_a_file_nothing_is_noted(tmp_path: Path) -> None:
    assert remote_environment({}, directory=tmp_path, home=tmp_path) == ({}, ())


def test_a_variable_names_another_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("A=1\n")
    given = {"DS_ENV_FILE": str(tmp_path / "mine")}
    assert remote_environment(given, directory=tmp_path, home=tmp_path)[0] == {"A": "1"}
    with pytest.raises(ConfigError, match="which DS_ENV_FILE names, does not exist"):
        remote_environment({"DS_ENV_FILE": "nowhere"}, directory=tmp_path, home=tmp_path)


def test_every_wrong_line_of_the_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / ".deepspeed_env"
    path.write_text("A=1\nB\n2C=3\n")
    with pytest.raises(ConfigError) as caught:
        read_environment_file(path)
    assert caught.value.problems == (
        f'{path}:2: "B" sets no environment variable; write NAME=VALUE',
        f'{path}:3: "2C=3" sets no environment variable; write NAME=VALUE',
    )
