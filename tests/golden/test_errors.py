"""Every mistake of `errors/` is refused with exactly the text beside it, at once, with exit code 1 (2 for a wrong command line).

`pytest tests/golden --update-golden` rewrites the texts; what makes a message good is asserted by `test_messages.py`, so that an
update cannot hide a bad one.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import deepy
from tests.conftest import REPOSITORY
from tests.golden.cases import ERRORS, Case, find_cases

SECONDS = 0.5
"""What a refusal may take: of processor time, which is what a user waits on a machine that has nothing else to do."""

STARTS = 5
"""How many times as long as a Python that only imports what configs are read with: half a second, on a machine that is busy."""

IN_PROCESSES_OF_THEIR_OWN = (
    *("keys/typo", "combinations/zero_2_with_pipeline", "files/missing"),
    *("hosts/hostfile_with_many_mistakes", "several/every_mistake_at_once", "command_line/unknown_option"),
)


@pytest.fixture(scope="module", autouse=True)
def imports() -> None:
    """What a command imports is imported before anything is timed."""
    deepy.main(["check", str(ERRORS / "base.yml")])


@pytest.mark.parametrize("case", find_cases(), ids=lambda case: case.name)
def test_a_mistake_is_told_with_exactly_this_text(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(case.directory)
    for name in {*os.environ, *case.variables}:
        if name in case.variables:
            monkeypatch.setenv(name, case.variables[name])
        else:
            monkeypatch.delenv(name)
    started = time.process_time()
    status = exit_status(case)
    seconds = time.process_time() - started
    printed = "".join(capsys.readouterr())

    assert status == status_for(printed), printed
    assert seconds < SECONDS
    if request.config.getoption("--update-golden"):
        case.golden.write_text(printed, encoding="utf-8")
    assert printed == case.expected


def status_for(printed: str) -> int:
    """1 for mistakes in a config; 2 where the command line itself cannot be read, which shows how it is used."""
    return 2 if printed.startswith("usage: ") else 1


def exit_status(case: Case) -> int:
    """What `deepy.py` returns or exits with."""
    try:
        return deepy.main(case.words)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.mark.parametrize("name", IN_PROCESSES_OF_THEIR_OWN)
def test_a_user_sees_the_same_in_half_a_second(name: str) -> None:
    (case,) = (case for case in find_cases() if case.name == name)
    # The two take turns, so that both meet the same neighbours.
    assert any(run_alone(case) < max(SECONDS, STARTS * start_alone()) for _ in range(10))


def start_alone() -> float:
    """Seconds of processor time of a Python that does little else than start."""
    started = processor_seconds()
    subprocess.run(
        [sys.executable, "-c", "import argparse, yaml; from pydantic import BaseModel"], timeout=60, check=True
    )
    return processor_seconds() - started


def run_alone(case: Case) -> float:
    """Seconds of processor time that a process of its own takes to print the text of the case."""
    started = processor_seconds()
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "deepy.py"), *case.words],
        cwd=case.directory,
        env=case.variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    seconds = processor_seconds() - started
    assert (run.returncode, run.stdout, run.stderr) == (status_for(case.expected), "", case.expected)
    return seconds


def processor_seconds() -> float:
    """Processor time of all processes that this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def refusal(directory: Path, *words: str) -> str:
    """What `deepy.py train.py WORDS` prints in a folder."""
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "deepy.py"), "train.py", *words],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    return run.stderr


@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3])
def test_an_interrupt_while_starting_shows_no_traceback(seconds: float) -> None:
    words = [sys.executable, str(REPOSITORY / "deepy.py"), "train.py", str(ERRORS / "base.yml"), "--dry-run"]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    _, printed = run.communicate(timeout=60)
    # Until it has come to `main`, Python answers by itself (its own site.py has a function of that name, too).
    assert printed in ("", "interrupted: nothing was started\n") or 'deepy.py", line' not in printed


@pytest.mark.parametrize(
    ("package", "file", "lines", "place"),
    [
        ("tensorboard", "tensorboard", "tensorboard_dir: logs\n", '"tensorboard_dir" is "logs" (a.yml:1:18)'),
        ("lm_eval", "lm-eval", "eval_tasks: [piqa]\n", '"eval_tasks" is ["piqa"] (a.yml:1:13)'),
        ("s3fs", "s3", "save: s3://bucket/run\n", '"save" is "s3://bucket/run" (a.yml:1:7)'),
        (
            "tiktoken",
            "tiktoken",
            "tokenizer_type: TiktokenTokenizer\nvocab_file: cl100k_base\n",
            '"tokenizer_type" is "TiktokenTokenizer" (a.yml:1:17)',
        ),
    ],
)
def test_a_package_that_is_not_installed_is_told_before_anything_starts(
    package: str,
    file: str,
    lines: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else found(name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yml").write_text(lines)
    assert deepy.main(["train.py", str(ERRORS / "base.yml"), "a.yml", "--dry-run"]) == 1
    sentence, *_ = capsys.readouterr().err.splitlines()
    fix = f"add it with pip install -r requirements/requirements-{file}.txt"
    assert sentence == f'error: {place}: this needs the package "{package}", which is not installed; {fix}'
    assert (REPOSITORY / "requirements" / f"requirements-{file}.txt").is_file()


def test_a_machine_without_torch_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else found(name))
    assert deepy.main(["train.py", str(ERRORS / "base.yml"), "--dry-run"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: torch is not installed for ")
    assert printed.endswith(": add it with pip install -r requirements/requirements-torch.txt\n")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    expected = '"pipe.yml" is a pipe or a device, not a config file: write its content to a file and give that'
    assert refusal(tmp_path, "pipe.yml") == f"error: {expected}\n"


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("num_layers: 4\n")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    expected = 'config file "a.yml" cannot be read (permission denied): give it the right to be read'
    assert refusal(tmp_path, "a.yml") == f"error: {expected}\n"
