"""`deepy.py doctor` as a user runs it: this machine, a config, processes that try collective operations, and hosts that are not there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.text import WIDTH
from tests.conftest import REPOSITORY
from tests.end_to_end.runs import ON_CPU, deepy_command, write_config

WITHOUT_TORCH = """
import sys
from deepy import main
status = main(sys.argv[1:])
heavy = sorted({"torch", "deepspeed", "numpy", "tokenizers"} & set(sys.modules))
assert not heavy, f"imported {heavy}"
sys.exit(status)
"""


def doctor(
    *words: object, environment: Mapping[str, str] = ON_CPU, command: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`deepy.py doctor WORDS`."""
    return subprocess.run(
        [*(command or deepy_command("doctor")), *map(str, words)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def levels(told: dict[str, Any], title: str) -> dict[str, str]:
    """The level of each finding of a section, by its subject; of several the last."""
    (section,) = (section for section in told["sections"] if section["title"].startswith(title))
    return {finding["subject"]: finding["level"] for finding in section["findings"]}


def test_without_words_this_machine_is_told_without_importing_torch_here() -> None:
    done = doctor(command=[sys.executable, "-c", WITHOUT_TORCH, "doctor"])
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Doctor for this machine"
    assert {"This machine", "torch and devices", "Packages"} <= set(lines)
    assert any(line.startswith("  ok       torch ") for line in lines)
    assert any(line.startswith("  -        flash-attn ") and "not installed" in line for line in lines)
    assert max(map(len, lines)) <= WIDTH
    assert "failure" not in done.stdout


def test_a_config_of_two_processes_is_examined_with_their_collective_operations(
    tmp_path: Path, small_data: Path
) -> None:
    config = write_config(tmp_path, small_data, num_gpus=2, train_iters=10, checkpoint_factor=5)
    done = doctor(config, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    found = levels(told, "The config")
    assert found == dict.fromkeys(("config", "launcher", "precision", "data", "places", "checkpoints"), "ok")
    assert levels(told, "Collective operations of 2 ranks, CPU, gloo") == {"results": "ok", "neighbours": "ok"}
    bandwidth = told["facts"]["bandwidth"]
    assert len(bandwidth["hosts"]) == 2
    assert bandwidth["wrong"] == {}
    assert all(each["seconds"] > 0 for each in bandwidth["collectives"])


def test_what_is_missing_is_a_failure_each_with_its_reason(tmp_path: Path) -> None:
    """A torch that cannot be imported, data that are not there, a tokenizer without its file, and a feature that is not built."""
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
    config = write_config(
        tmp_path, tmp_path / "nowhere", train_iters=10, num_gpus=2, tokenizer_type="HFTokenizer", moe_num_experts=4
    )
    done = doctor(config, environment={**ON_CPU, "PYTHONPATH": str(tmp_path / "broken")})
    assert done.returncode == 1
    printed = " ".join(done.stdout.split())
    assert "failure torch cannot be imported: ImportError: libcudart.so.13: cannot open shared object file" in printed
    assert f"failure data_path {tmp_path}/nowhere.bin does not exist" in printed
    assert "tokenizer_type" in printed
    assert "moe_num_experts" in printed
    assert "Collective operations" not in printed, "they need torch"
    assert "Traceback" not in done.stdout + done.stderr


def test_a_host_that_cannot_be_reached_is_a_row_with_the_reason(tmp_path: Path) -> None:
    ssh = tmp_path / "bin"
    ssh.mkdir()
    for name, script in {
        "ssh": "echo 'ssh: connect to host b port 22: No route to host' >&2; exit 255",
        "pdsh": "exit 1",
    }.items():
        (ssh / name).write_text(f"#!/bin/sh\n{script}\n")
        (ssh / name).chmod(0o755)
    (tmp_path / "hosts").write_text("a slots=1\nb slots=1\n")
    environment = {**ON_CPU, "PATH": f"{ssh}:{ON_CPU['PATH']}"}
    done = doctor(f"hostfile={tmp_path / 'hosts'}", "--quick", environment=environment)
    assert done.returncode == 1
    assert "2 machines" in done.stdout
    assert "failure  no" in done.stdout
    assert "could not be examined: connect to host b port 22: No route to host" in " ".join(done.stdout.split())


def test_a_wrong_command_line_ends_with_two() -> None:
    done = doctor("--josn")
    assert done.returncode == 2
    assert "--json" in done.stderr, "what was meant"
