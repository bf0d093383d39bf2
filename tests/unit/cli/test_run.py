"""What deepy.py says at the end of a run, and what it tells the launcher of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron.cli.run import main, option_assignments, parse_run_args
from megatron.cli.starting import Plan, build_job, make_plan, way_on
from megatron.errors import LaunchError
from megatron.launcher.base import HeadPlace, Host
from megatron.neox_arguments import NeoXArgs
from tests.unit.neox_arguments.minimal import MINIMAL


def planned(words: list[str]) -> Plan:
    options = parse_run_args(words)
    return make_plan(options, option_assignments(options))


def arguments(**changes: Any) -> NeoXArgs:
    return NeoXArgs.from_dict({**MINIMAL, "save": "ours", "load": "ours", "load_if_exists": True, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"load": "base", "finetune": True}, " with load=ours finetune=false"),
        ({"load": None, "load_if_exists": False}, " with load=ours"),
        ({"iteration": 100, "no_load_optim": True}, " with iteration=null no_load_optim=false"),
    ],
)
def test_the_way_on_leads_to_what_the_run_has_saved(changes: dict[str, Any], words: str) -> None:
    assert way_on(arguments(**changes)) == f"the same command{words} goes on"


@pytest.mark.parametrize(("script", "expected"), [("train.py", (3, True)), ("generate.py", (0, False))])
def test_only_training_is_started_again_and_can_be_stopped_without_loss(
    script: str, expected: tuple[int, bool]
) -> None:
    job = build_job(arguments(max_restarts=3), script, (Host("localhost", (0,)),), HeadPlace(), grace_seconds=5)
    assert (job.max_restarts, job.saves) == expected


def test_ctrl_c_is_for_the_script_where_that_talks_with_a_person() -> None:
    def interactive(script: str, **changes: str) -> bool:
        args = arguments(**changes)
        return build_job(args, script, (Host("localhost", (0,)),), HeadPlace(), grace_seconds=5).interactive

    assert interactive("generate.py", text_gen_type="interactive")
    assert not interactive("generate.py")
    assert not interactive("eval.py", text_gen_type="interactive")


def test_no_job_is_planned_by_one_of_several_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.yml").write_text(
        yaml.safe_dump({**MINIMAL, "data_path": "data", "tokenizer_type": "CharLevelTokenizer"})
    )
    words = ["train.py", str(tmp_path / "my.yml"), "launcher=local", "num_gpus=1"]
    planned(words)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match=r"mpirun has started deepy\.py 2 times"):
        planned(words)


@pytest.mark.parametrize("word", ["-1", "nan", "soon"])
def test_a_grace_period_that_is_no_number_of_seconds_is_a_wrong_command_line(word: str) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse_run_args(["train.py", "my.yml", f"--grace-seconds={word}"])
    assert leaving.value.code == 2


def test_a_directory_that_has_been_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    with pytest.raises(LaunchError, match="does not exist any more"):
        build_job(arguments(), "train.py", (Host("localhost", (0,)),), HeadPlace(), grace_seconds=5)


def test_a_dry_run_does_not_show_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**MINIMAL, "data_path": "data", "tokenizer_type": "CharLevelTokenizer"}
    (tmp_path / "my.yml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("NEOX_JOB_TOKEN", "very secret")
    assert main(["--dry-run", "train.py", str(tmp_path / "my.yml"), "launcher=local", "num_gpus=1"]) == 0
    out = capsys.readouterr().out
    assert "megatron.launcher.agent" in out
    assert "very secret" not in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("generate.py c.yml -i in:1.txt -o out.jsonl --iteration 7", {'sample_input_file="in:1.txt"', 'sample_output_file="out.jsonl"', "iteration=7"}),
        ("-i 🙂.txt generate.py c.yml", {'sample_input_file="🙂.txt"'}),
        ("train.py -i host:0 c.yml --iteration=7", {"include=host:0", "iteration=7"}),
        ("eval.py c.yml --log_samples --limit 0.5 --eval_tasks a b,c", {"eval_log_samples=true", "eval_limit=0.5", 'eval_tasks=["a", "b", "c"]'}),
        ("my.py -i host:0 c.yml", {"include=host:0"}),
    ],
)  # fmt: skip
def test_options_are_keys_and_which_there_are_depends_on_the_script(words: str, expected: set[str]) -> None:
    assert set(option_assignments(parse_run_args(words.split()))) == expected


def test_an_option_of_another_script_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_run_args(["train.py", "c.yml", "-o", "out.jsonl"])
    assert "unrecognized arguments: -o" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["train.py", "--no-such-option"]])
def test_the_command_line_alone_is_answered_without_reading_what_configs_need(words: list[str]) -> None:
    program = (
        "import sys, deepy\n"
        f"try:\n    deepy.main({words!r})\n"
        "except SystemExit:\n    pass\n"
        "sys.exit(', '.join(name for name in ('pydantic', 'yaml', 'megatron.neox_arguments') if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
