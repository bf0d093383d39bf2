"""`deepy.py plan` as a user runs it: the whole page, quickly, without torch, and with words that work when they are pasted."""

from __future__ import annotations

import os
import pty
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron.text import WIDTH
from tests.conftest import REPOSITORY
from tests.end_to_end.runs import ON_CPU, deepy_command

GOLDEN = REPOSITORY / "tests" / "golden" / "plan" / "page.txt"
SECONDS = 2.0
MODEL: dict[str, Any] = {
    "num_layers": 24,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "seq_length": 2048,
    "pos_emb": "rotary",
    "no_weight_tying": True,
    "precision": "bfloat16",
    "optimizer": {"type": "Adam", "params": {"lr": 2.0e-4, "betas": [0.9, 0.95], "eps": 1.0e-8}},
    "zero_optimization": {"stage": 1, "overlap_comm": True},
    "lr_decay_style": "cosine",
    "min_lr": 2.0e-5,
    "warmup": 0.01,
    "train_batch_size": 512,
    "train_micro_batch_size_per_gpu": 4,
    "train_iters": 100_000,
    "tokenizer_type": "HFTokenizer",
}

WITHOUT_TORCH = """
import sys
from deepy import main
status = main(sys.argv[1:])
heavy = sorted({"torch", "deepspeed", "numpy", "tokenizers"} & set(sys.modules))
assert not heavy, f"imported {heavy}"
sys.exit(status)
"""


def plan(*words: object, directory: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """`deepy.py plan WORDS` on a machine without accelerators."""
    return subprocess.run(
        deepy_command("plan", *words),
        cwd=directory,
        env=ON_CPU,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def page(*words: object, directory: Path = REPOSITORY) -> str:
    """What it prints when it succeeds."""
    done = plan(*words, directory=directory)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def write_model(directory: Path, **changes: Any) -> str:
    """A config file of 1.4 billion parameters; returns its name."""
    keys = {key: value for key, value in {**MODEL, **changes}.items() if value is not None}
    (directory / "model.yml").write_text(yaml.safe_dump(keys, sort_keys=False))
    return "model.yml"


def test_the_largest_of_the_first_models_is_planned_in_two_seconds_without_torch() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["plan", "configs/20B.yml", "--gpus", "96xA100-40GB", "--layouts", "3"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words],
        cwd=REPOSITORY,
        env=ON_CPU,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS, "of processor time"
    assert "Plan for configs/20B.yml on 96 x A100-40GB (12 nodes of 8)" in done.stdout
    assert re.search(r"parameters +20\.5\dB", done.stdout)
    assert "96 devices = pipeline 4 x data 12 x tensor 2" in done.stdout
    assert "FITS" in done.stdout, "it was trained there"
    assert "bubble" in done.stdout
    assert re.search(r"150,000 steps, 471\.86B tokens: \d+\.\d days", done.stdout)


def test_the_page_of_a_model_is_this_one(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    printed = page(write_model(tmp_path), "--gpus", "2x8xA100-40GB", directory=tmp_path)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(printed, encoding="utf-8")
    assert printed == GOLDEN.read_text(encoding="utf-8")


def test_a_pipe_gets_plain_lines_that_fit_the_page(tmp_path: Path) -> None:
    printed = page(write_model(tmp_path), "--gpus", "4xT4", "--layouts", "6", directory=tmp_path)
    assert printed.isascii()
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) <= WIDTH
    assert printed.endswith("\n")


def test_a_terminal_gets_the_same_lines_with_headlines_that_stand_out(tmp_path: Path) -> None:
    words = (write_model(tmp_path), "--gpus", "8xH100")
    ours, theirs = pty.openpty()
    environment = {**ON_CPU, "TERM": "xterm-256color", "COLUMNS": "80"}
    subprocess.run(deepy_command("plan", *words), cwd=tmp_path, env=environment, stdout=theirs, timeout=60, check=True)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # Linux reports the end of a terminal as an error
        pass
    os.close(ours)
    text = shown.decode().replace("\r\n", "\n")
    assert "\x1b[1" in text
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).split() == page(*words, directory=tmp_path).split()


def proposed_words(printed: str) -> list[list[str]]:
    """The words of each proposal on a page."""
    section = printed.split("Layouts that fit, fastest first\n")[1].split("\n  All keep")[0]
    return [re.findall(r"[a-z_]+(?:\.[a-z_]+)*=\S+", part) for part in re.split(r"\n  \d+\. (?=[A-Z\d])", section)[-3:]]


def test_pasted_words_give_a_layout_that_fits(tmp_path: Path) -> None:
    """The config's own layout does not: every proposal of its page, pasted, does, with the memory that was promised."""
    name = write_model(
        tmp_path, hidden_size=4096, num_attention_heads=32, num_layers=32, train_micro_batch_size_per_gpu=8
    )
    place = ("--gpus", "8xA100-40GB")
    printed = page(name, *place, directory=tmp_path)
    assert "DOES NOT FIT" in printed
    assert "The smallest change that fits" in printed
    rows = re.findall(r"^  (\d)\.  .* (\d+\.\d GiB) +\d\.\d\d$", printed, re.MULTILINE)
    assert [number for number, _ in rows] == ["1", "2", "3"]
    for (_, memory), words in zip(rows, proposed_words(printed), strict=True):
        assert words
        again = page(name, *words, *place, directory=tmp_path)
        assert "  verdict        FITS" in again, words
        assert re.search(rf" {re.escape(memory)}$", again, re.MULTILINE), "the total of its memory table"


def test_without_devices_the_page_says_what_it_assumes(tmp_path: Path) -> None:
    printed = page(write_model(tmp_path, pipe_parallel_size=2, model_parallel_size=2), directory=tmp_path)
    first = " ".join(printed.split("\n\n")[0].split())
    assert "on 4 x A100-80GB" in first
    assert "note: no accelerator and no hostfile here" in first
    assert "--gpus" in first


def test_a_hostfile_gives_the_number_of_devices(tmp_path: Path) -> None:
    (tmp_path / "hostfile").write_text("a slots=8\nb slots=8\n")
    printed = page(write_model(tmp_path, hostfile="hostfile"), directory=tmp_path)
    assert "on 16 x A100-80GB (2 nodes of 8)" in printed
    assert "the product of the devices is not known" in " ".join(printed.split())


def test_the_vocabulary_and_the_utilisation_can_be_given(tmp_path: Path) -> None:
    printed = page(write_model(tmp_path), "--gpus", "8xH100", "--vocab-size", 1000, "--mfu", 0.5, directory=tmp_path)
    assert "1,000 entries (given), padded to 1,024 rows" in printed
    assert "50 % of the peak" in printed


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--gpus", "8xA100", '"A100" is not a known device (did you mean A100-80GB or A100-40GB?): choose one of'),
        ("--gpus", "many", '"many" is not a known device: choose one of'),
        ("--gpus", "12xH100", '"12xH100": 12 devices do not divide into nodes of 8'),
        ("--mfu", "40", '"40" is not a share of the peak'),
        ("--vocab-size", "x", '"x" is not a whole number above 0'),
        ("--layouts", "0", '"0" is not a whole number above 0'),
    ],
)
def test_a_wrong_command_line_is_one_clear_error(tmp_path: Path, option: str, value: str, sentence: str) -> None:
    done = plan(write_model(tmp_path), option, value, directory=tmp_path)
    assert done.returncode == 2
    (error,) = (line for line in done.stderr.splitlines() if "error:" in line)
    assert f"argument {option}: {sentence}" in error
    assert "Traceback" not in done.stderr


def test_mistakes_of_the_config_are_told_together(tmp_path: Path) -> None:
    name = write_model(tmp_path, norm="rmsnrom", seq_length=None)
    done = plan(name, "--gpus", "8xH100", directory=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(re.findall(r"^error: ", done.stderr, re.MULTILINE)) == 2


def test_a_reader_that_has_gone_is_no_mistake(tmp_path: Path) -> None:
    words = [*deepy_command("plan", write_model(tmp_path), "--gpus", "8xH100")]
    with subprocess.Popen(words, cwd=tmp_path, env=ON_CPU, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_without_words_an_example_is_shown() -> None:
    done = plan()
    assert done.returncode == 2
    assert "write for example deepy.py plan configs/20B.yml --gpus 96xA100-40GB" in done.stderr


def test_help_tells_how_devices_are_written() -> None:
    assert "96xA100-40GB" in plan("--help").stdout
