"""Which ends of ranks are worth a restart, and what the agent says about each end. Real processes, without torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron.errors import CheckpointError, ConfigError, DataError, NeoXError, PassingError
from megatron.launcher.agent import conclude, pass_signals_on, run_agent
from megatron.launcher.agent_options import AgentOptions, parse_agent_options
from megatron.launcher.failure import write_error_record
from megatron.launcher.ranks import Ranks
from megatron.launcher.restarts import Restarts
from megatron.stopping import POLITE_SIGNALS

KILLED = "import os; os.kill(os.getpid(), 9)"


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    group = Ranks(grace_seconds=20)
    yield group
    group.kill_if_running()
    group.close()


def run_to_end(ranks: Ranks, code: str, *arguments: object) -> None:
    """One rank that runs `code`, until it has ended."""
    ranks.start([sys.executable, "-I", "-c", code, *map(str, arguments)], {0: dict(os.environ)})
    deadline = time.monotonic() + 20
    while not (ranks.any_failed() or ranks.all_succeeded()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leave(ranks: Ranks, error: Exception, folder: Path) -> None:
    """One rank that ends by an error it leaves for the agent."""
    write_error_record(folder / "record", error)
    run_to_end(
        ranks,
        "import os, shutil, sys; shutil.copy(sys.argv[1], os.environ['TORCHELASTIC_ERROR_FILE']); sys.exit(1)",
        folder / "record",
    )


def test_a_killed_rank_is_worth_as_many_restarts_as_allowed_each_told_in_a_line(ranks, capsys):
    run_to_end(ranks, KILLED)
    restarts = Restarts(2)
    assert [restarts.take(ranks, world_size=2) for _ in range(3)] == [True, True, False]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: rank 0 was killed by signal 9 (SIGKILL)")
    assert (first[-16:], second[-16:]) == ("; restart 1 of 2", "; restart 2 of 2")


@pytest.mark.parametrize(
    ("error", "worth_it"),
    [
        (ValueError("odd"), True),
        (PassingError("the run hangs"), True),
        (NeoXError("the run has diverged"), False),
        (ConfigError(["no such norm"]), False),
        (CheckpointError("the disk is full"), False),
        (DataError("no data"), False),
    ],
)
def test_mistakes_that_come_again_are_not_tried_again(ranks, tmp_path, error, worth_it):
    leave(ranks, error, tmp_path)
    assert Restarts(1).take(ranks, world_size=1) is worth_it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("code", ["import os, signal, sys; signal.signal({0}, signal.SIG_DFL); os.kill(os.getpid(), {0})", "import sys; sys.exit(128 + {0})"])  # fmt: skip
def test_a_rank_that_was_asked_to_stop_is_not_started_again(ranks, capsys, number, code):
    run_to_end(ranks, code.format(int(number)))
    assert not Restarts(1).take(ranks, world_size=1)
    assert conclude(ranks, world_size=1) == 128 + number
    assert capsys.readouterr().err == f"stopped by {number.name}; nothing was saved\n"
    assert conclude(ranks, world_size=1, saves=True) == 75
    assert capsys.readouterr().err == f"stopped by {number.name} before training had begun\n"


def test_nobody_is_started_again_after_a_stop(ranks):
    run_to_end(ranks, KILLED)
    ranks.stop(signal.SIGUSR1)
    assert not Restarts(1).take(ranks, world_size=1)


def test_ranks_that_saved_and_stopped_are_told_by_their_status_alone(ranks, capsys):
    run_to_end(ranks, "import sys; sys.exit(75)")
    assert conclude(ranks, world_size=1, saves=True) == 75
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stop", [[], [signal.SIGUSR1], [signal.SIGTERM]])
def test_the_second_interrupt_abandons_ranks_that_save_whatever_stopped_them(ranks, capsys, stop):
    before = {number: signal.getsignal(number) for number in (*POLITE_SIGNALS, signal.SIGHUP, signal.SIGUSR2)}
    ranks.start(
        [sys.executable, "-I", "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"], {0: {}}
    )
    pass_signals_on(ranks)
    try:
        for number in (*stop, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert not ranks.abandoned
        os.kill(os.getpid(), signal.SIGINT)
        assert ranks.abandoned
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert conclude(ranks, world_size=1, saves=True) == 130
    assert capsys.readouterr().err.startswith("killed by a second SIGINT")


def test_restarts_on_several_machines_are_refused(ranks):
    with pytest.raises(NeoXError, match='"max_restarts" is 2 and the job has 4 machines'):
        run_agent(AgentOptions("train.py", nodes=4, max_restarts=2), ranks)


def test_the_agent_reads_the_options_that_a_launcher_writes():
    options = AgentOptions("train.py", ("--neox-args", "x"), ranks=2, max_restarts=3, saves=True)
    assert parse_agent_options(options.argv()) == options
