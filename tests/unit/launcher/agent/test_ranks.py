"""Real processes of ranks: started, signalled, ended. The scripts import nothing, so each takes some 20 ms to start."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron.errors import LaunchError
from megatron.launcher.agent.logs import RankLog
from megatron.launcher.agent.ranks import Ranks, rank_argv
from megatron.launcher.children import start_child
from megatron.launcher.failure import Failure, describe_failure, first_cause

SAVE_ON_SIGNAL = """
import os, signal, sys, time
def save(number, frame):
    time.sleep(0.3)
    open(f"{sys.argv[1]}.{os.environ['RANK']}", "a").write(f"saved after {number}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGUSR1, lambda number, frame: open(f"{sys.argv[1]}.{os.environ['RANK']}", "a").write("noticed\\n"))
open(f"{sys.argv[1]}.ready{os.environ['RANK']}", "w")
for _ in range(1200): time.sleep(0.05)
"""


@pytest.fixture
def ranks():
    group = Ranks(grace_seconds=20)
    yield group
    group.kill_if_running()
    group.close()


def start(
    ranks: Ranks, code: str, *arguments: object, size: int = 2, logs: dict[int, RankLog] | None = None
) -> dict[int, int]:
    environments = {rank: {**os.environ, "RANK": str(rank)} for rank in range(size)}
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as script:
        script.write(code)
    return ranks.start(script.name, [*map(str, arguments)], environments, logs=logs)


def cause(ranks: Ranks) -> Failure | None:
    failures = ranks.failures()
    return first_cause(failures) if failures else None


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """Seconds until `condition` held."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "waited too long"
        time.sleep(0.01)
    return time.monotonic() - begin


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def test_ranks_that_exit_with_0_have_succeeded(ranks):
    start(ranks, "pass")
    wait_until(ranks.all_succeeded)
    assert not ranks.any_failed()
    assert cause(ranks) is None


def test_a_rank_that_saved_and_stopped_has_not_failed_and_is_waited_for(ranks):
    start(ranks, "import os, sys, time\ntime.sleep(0.5 * int(os.environ['RANK']))\nsys.exit(75)")
    wait_until(ranks.any_stopped)
    assert not ranks.any_failed()
    assert not ranks.all_succeeded(), "the other still saves"
    wait_until(ranks.all_succeeded)
    assert cause(ranks) is None


def test_a_failure_beside_ranks_that_saved_and_stopped_is_the_cause(ranks):
    start(ranks, "import os, sys\nsys.exit([75, 4][int(os.environ['RANK'])])")
    wait_until(lambda: ranks.any_stopped() and ranks.any_failed())
    assert not ranks.all_succeeded()
    assert cause(ranks).exit_code == 4


def test_nothing_has_succeeded_before_the_start(ranks):
    assert not ranks.all_succeeded()


def test_one_failing_rank_is_the_cause_and_the_others_are_ended(ranks):
    pids = start(ranks, "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit(5)\ntime.sleep(60)")
    wait_until(ranks.any_failed)
    begin = time.monotonic()
    ranks.end()
    assert time.monotonic() - begin < 3
    assert not any(exists(pid) for pid in pids.values())
    failure = cause(ranks)
    assert (failure.rank, failure.exit_code) == (1, 5)


def test_survivors_that_ignore_sigterm_are_killed(ranks, tmp_path):
    code = """
import os, signal, sys, time
if os.environ["RANK"] == "0":
    signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], "w"); time.sleep(60)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    pids = start(ranks, code, tmp_path / "ready")
    wait_until(ranks.any_failed)
    ranks.end(patience=0.2)
    assert not any(exists(pid) for pid in pids.values())
    assert (cause(ranks).rank, cause(ranks).exit_code) == (1, -9)


def test_what_a_failed_rank_leaves_behind_is_killed_too(ranks, tmp_path):
    code = f"""
import subprocess, sys
child = subprocess.Popen([{sys.executable!r}, "-I", "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
sys.exit(1)
"""
    start(ranks, code, tmp_path / "pid", size=1)
    wait_until(ranks.any_failed)
    grandchild = int((tmp_path / "pid").read_text())
    assert exists(grandchild)
    ranks.end()
    wait_until(lambda: not exists(grandchild))


def test_a_stop_reaches_every_rank_exactly_once_and_waits_for_a_clean_exit(ranks, tmp_path):
    start(ranks, SAVE_ON_SIGNAL, tmp_path / "out")
    wait_until(lambda: all((tmp_path / f"out.ready{rank}").exists() for rank in range(2)))
    ranks.stop(signal.SIGTERM)
    ranks.stop(signal.SIGTERM)
    wait_until(lambda: ranks.any_failed() or ranks.all_succeeded())
    assert ranks.all_succeeded(), ranks.failures()
    assert [(tmp_path / f"out.{rank}").read_text() for rank in range(2)] == ["saved after 15\n"] * 2


def test_a_second_stop_changes_nothing(ranks, monkeypatch):
    sent = []
    monkeypatch.setattr("megatron.launcher.agent.ranks.send_signal", lambda process, number: sent.append(number))
    start(ranks, "import time; time.sleep(60)", size=1)
    ranks.stop(signal.SIGUSR1)
    ranks.stop(signal.SIGTERM)
    assert (sent, ranks.stop_signal) == ([signal.SIGTERM], signal.SIGUSR1)


def test_a_stop_that_comes_while_ranks_are_started_reaches_them_all(ranks, monkeypatch):
    def started(*arguments, **options):
        ranks.stop(signal.SIGTERM)  # as the handler of a signal does
        return start_child(*arguments, **options)

    monkeypatch.setattr("megatron.launcher.agent.ranks.start_child", started)
    start(ranks, "import time; time.sleep(60)")
    wait_until(lambda: all(process.poll() == -signal.SIGTERM for process in ranks._processes.values()))


def test_what_a_rank_of_the_last_attempt_complained_of_is_forgotten(ranks):
    complain = """
import json, os
details = {"py_callstack": "the first attempt", "time": 1.0}
open(os.environ["TORCHELASTIC_ERROR_FILE"], "w").write(json.dumps({"message": {"message": "", "extraInfo": details}}))
os._exit(1)
"""
    start(ranks, complain, size=1)
    wait_until(ranks.any_failed)
    assert cause(ranks).record.text == "the first attempt"
    start(ranks, "import os; os._exit(7)", size=1)
    wait_until(ranks.any_failed)
    assert (cause(ranks).exit_code, cause(ranks).record) == (7, None)


def test_other_signals_are_passed_on_and_stop_nothing(ranks, tmp_path):
    start(ranks, SAVE_ON_SIGNAL, tmp_path / "out", size=1)
    wait_until((tmp_path / "out.ready0").exists)
    ranks.forward(signal.SIGUSR1)
    wait_until((tmp_path / "out.0").exists)
    assert ranks.stop_signal is None
    assert not ranks.any_failed()


def test_ranks_that_do_not_stop_in_time_are_killed(tmp_path):
    ranks = Ranks(grace_seconds=0.2)
    start(
        ranks,
        "import signal, sys, time\nsignal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(60)",
        tmp_path / "ready",
        size=1,
    )
    wait_until((tmp_path / "ready").exists)
    ranks.stop(signal.SIGTERM)
    assert wait_until(ranks.any_failed) < 5
    assert ranks.overdue
    ranks.close()


def test_ranks_die_with_the_process_that_started_them(tmp_path):
    """A parent that is killed with SIGKILL can end nothing itself: the kernel does it."""
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parents[4])!r})
from megatron.launcher.agent.ranks import Ranks
ranks = Ranks(grace_seconds=1)
open(sys.argv[1] + ".py", "w").write("import time; time.sleep(60)")
pids = ranks.start(sys.argv[1] + ".py", (), {{0: dict(os.environ), 1: dict(os.environ)}})
open(sys.argv[1], "w").write(" ".join(map(str, pids.values())))
os.replace(sys.argv[1], sys.argv[1] + ".done")
time.sleep(60)
"""
    parent = start_child(
        [sys.executable, "-I", "-c", code, str(tmp_path / "pids")],
        {**os.environ, "TMPDIR": str(tmp_path)},
        death_signal=signal.SIGKILL,
    )
    wait_until((tmp_path / "pids.done").exists)
    pids = [int(pid) for pid in (tmp_path / "pids.done").read_text().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(exists(pid) for pid in pids), seconds=5)


def test_only_the_first_rank_reads_our_input(ranks, tmp_path):
    start(
        ranks,
        "import os, sys\nopen(f\"{sys.argv[1]}.{os.environ['RANK']}\", 'w').write(os.readlink('/proc/self/fd/0'))",
        tmp_path / "stdin",
    )
    wait_until(ranks.all_succeeded)
    assert (tmp_path / "stdin.0").read_text() == os.readlink("/proc/self/fd/0")
    assert (tmp_path / "stdin.1").read_text() == "/dev/null"


def test_what_ranks_print_is_not_buffered():
    assert rank_argv("train.py", ["a"]) == [sys.executable, "-u", "train.py", "a"]


def test_long_words_reach_the_rank_in_a_file_and_short_ones_as_they_are(ranks, tmp_path):
    long = "x" * 300_000  # more than the kernel takes for one word
    copy = "import sys\nopen(sys.argv[1], 'w').write(sys.argv[2] + open(sys.argv[3][1:]).read())"
    start(ranks, copy, tmp_path / "words", "short", long, size=1)
    wait_until(ranks.all_succeeded)
    assert (tmp_path / "words").read_text() == "short" + long


def test_the_output_of_ranks_goes_to_their_files_and_the_first_ones_to_the_console_too(ranks, tmp_path, capfd):
    logs = {rank: RankLog(tmp_path / "logs", rank, on_console=rank == 0, title=f"rank {rank}") for rank in range(2)}
    start(
        ranks,
        "import os, sys\nprint('out of', os.environ['RANK'])\nprint('error of', os.environ['RANK'], file=sys.stderr)",
        logs=logs,
    )
    wait_until(ranks.all_succeeded)
    ranks.finish_logs()
    for rank in range(2):
        title, *lines = (tmp_path / "logs" / f"rank_{rank}.log").read_text().splitlines()
        assert title.startswith("--- ")
        assert title.endswith(f" UTC, rank {rank}")
        assert sorted(lines) == [f"error of {rank}", f"out of {rank}"]
    assert capfd.readouterr() == ("out of 0\n", "error of 0\n")


def test_a_rank_that_ends_without_a_word_of_ours_is_quoted(ranks, tmp_path):
    log = RankLog(tmp_path, 3, on_console=False, title="before")
    start(ranks, "print('first try'); raise SystemExit(1)", size=1, logs={0: log})
    wait_until(ranks.any_failed)
    log = RankLog(tmp_path, 3, on_console=False, title="now")
    start(ranks, "print('a line'); import os; os.abort()", size=1, logs={0: log})
    wait_until(ranks.any_failed)
    ranks.finish_logs()
    assert cause(ranks).last_words == "a line", "the attempt before has its own words"
    assert "it printed last:\na line" in describe_failure(cause(ranks), world_size=2)


def test_a_directory_for_logs_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match=r'"log_dir" is ".*file/logs", where rank_0\.log cannot be written on'):
        RankLog(tmp_path / "file" / "logs", 0, on_console=False, title="")


def test_a_report_is_taken_from_the_rank_that_left_one(ranks):
    start(
        ranks, "import os\nif os.environ['RANK'] == '1': open(os.environ['NEOX_REPORT_FILE'], 'w').write('all is well')"
    )
    wait_until(ranks.all_succeeded)
    assert ranks.report() == "all is well"


def test_a_process_that_a_rank_leaves_behind_writes_into_no_other_file(tmp_path):
    """It holds the pipe when the log is finished; the number of our descriptor belongs to something else then."""
    log = RankLog(tmp_path, 0, on_console=True, title="now")
    left_behind = os.dup(log.outputs[0])
    log.started()
    log.finish()
    others = [os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT) for _ in range(8)]
    log.finish()
    os.write(left_behind, b"late\n")
    os.close(left_behind)
    wait_until(lambda: (tmp_path / "rank_0.log").read_text().endswith("late\n"))
    assert (tmp_path / "other").read_text() == ""
    for other in others:
        os.close(other)


def test_what_a_rank_printed_last_is_short_also_when_it_prints_no_lines(tmp_path):
    log = RankLog(tmp_path, 0, on_console=False, title="now")
    os.write(log.outputs[0], b"x" * 200_000)
    assert len(log.last_lines()) < 1000
