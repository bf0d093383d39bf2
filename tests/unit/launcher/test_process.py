"""Running the commands of a launcher, with real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from megatron.launcher import process
from megatron.launcher.agent_options import agent_command
from megatron.launcher.base import Command, Host, Job
from megatron.launcher.process import run_commands, with_paths


def python(code: str, *arguments: object, **environment: str) -> Command:
    return Command((sys.executable, "-I", "-c", code, *map(str, arguments)), environment)


def test_all_commands_succeeding_is_0():
    assert run_commands([python("pass"), python("pass")], grace_seconds=5) == 0


def test_the_first_failure_ends_the_others_and_is_the_exit_code():
    begin = time.monotonic()
    assert (
        run_commands([python("import time; time.sleep(60)"), python("import sys; sys.exit(3)")], grace_seconds=50) == 3
    )
    assert time.monotonic() - begin < 30


def test_a_command_that_saved_and_stopped_ends_no_other_and_its_status_is_passed_on(tmp_path):
    slow = python("import sys, time; time.sleep(0.5); open(sys.argv[1], 'w')", tmp_path / "saved")
    assert run_commands([python("import sys; sys.exit(75)"), slow], grace_seconds=5) == 75
    assert (tmp_path / "saved").exists()


def test_a_failure_outweighs_commands_that_saved_and_stopped():
    assert run_commands([python("import sys; sys.exit(75)"), python("import sys; sys.exit(3)")], grace_seconds=5) == 3


def test_a_command_killed_by_a_signal_gives_the_status_a_shell_gives(capfd):
    assert run_commands([python("import os; os.kill(os.getpid(), 9)")], grace_seconds=5) == 137
    assert capfd.readouterr().err.startswith("error: the agent was killed by signal 9 (SIGKILL)")


def test_the_environment_of_a_command_is_added_to_ours(tmp_path):
    code = "import os, sys; open(sys.argv[1], 'w').write(os.environ['ADDED'] + os.environ.get('HOME', ''))"
    assert run_commands([python(code, tmp_path / "out", ADDED="yes")], grace_seconds=5) == 0
    assert (tmp_path / "out").read_text() == "yes" + os.environ.get("HOME", "")


def test_the_python_path_of_the_user_is_kept():
    assert with_paths({"PYTHONPATH": "/mine"}, {"PYTHONPATH": "/repository"})["PYTHONPATH"] == "/repository:/mine"
    assert with_paths({}, {"PYTHONPATH": "/repository"})["PYTHONPATH"] == "/repository"


COUNT_SIGNALS = """
import signal, sys, time
def on_signal(number, frame):
    open(sys.argv[1], "a").write(f"{number}\\n")
    if number != signal.SIGUSR1:
        time.sleep(0.3)
        sys.exit(0)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, on_signal)
open(sys.argv[1] + ".ready", "w")
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_command_once_and_a_clean_exit_is_0(tmp_path, number):
    outputs = [tmp_path / "a", tmp_path / "b"]

    def interrupt():
        while not all(output.with_suffix(".ready").exists() for output in outputs):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)
        # A process that has both waiting takes them in the order of their numbers.
        while not all(output.exists() and output.read_text() for output in outputs):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    before = signal.getsignal(number)
    assert run_commands([python(COUNT_SIGNALS, output) for output in outputs], grace_seconds=20) == 0
    thread.join()
    assert [output.read_text() for output in outputs] == [f"{signal.SIGUSR1:d}\n{number:d}\n"] * 2
    assert signal.getsignal(number) is before


def test_a_signal_that_comes_while_a_command_is_started_stops_it_and_starts_no_other(tmp_path, monkeypatch):
    start = process.start_child

    def interrupted(*arguments, **options):
        child = start(*arguments, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return child

    slow = python("import sys, time; time.sleep(60)")
    second = python("import sys; open(sys.argv[1], 'w')", tmp_path / "second")
    monkeypatch.setattr(process, "start_child", interrupted)
    begin = time.monotonic()
    assert run_commands([slow, second], grace_seconds=50) == 128 + signal.SIGTERM
    assert time.monotonic() - begin < 30
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("number", process.STOPS)
def test_a_signal_that_comes_before_the_agent_listens_is_one_of_a_run_that_has_not_begun(monkeypatch, capfd, number):
    start = process.start_child

    def signalled_soon(*arguments, **options):
        child = start(*arguments, **options)
        threading.Timer(
            0.01, os.kill, (os.getpid(), number)
        ).start()  # its interpreter takes ten times as long to start
        return child

    monkeypatch.setattr(process, "start_child", signalled_soon)
    job = Job("train.py", (), (Host("localhost", (0,)),), saves=True)
    assert run_commands([agent_command(job)], grace_seconds=20) == 75
    by = signal.SIGTERM if number == signal.SIGHUP else number
    assert capfd.readouterr().err == f"stopped by {by.name} before training had begun\n"


def test_a_command_that_does_not_end_after_a_signal_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "END_PATIENCE", 0.2)
    code = "import signal, sys, time\nsignal.signal(15, signal.SIG_IGN)\nopen(sys.argv[1], 'w')\ntime.sleep(60)"

    def interrupt():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    begin = time.monotonic()
    assert run_commands([python(code, tmp_path / "ready")], grace_seconds=0.1) == 137
    assert time.monotonic() - begin < 30
    thread.join()
