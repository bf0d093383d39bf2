"""The frame around a rank's main: errors are left for the agent, or told once without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.launcher.failure import read_error_record

REPOSITORY = Path(__file__).parents[3]


def run(
    body: str, *, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `body` as the main of a rank; NEOX_RANK_DEFAULTS as the agent sets it, unless given."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    code = f"import os, sys\nfrom megatron.errors import DataError\nfrom megatron.launcher.worker import run_worker\ndef main():\n{lines}run_worker(main)\n"
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "TORCHELASTIC_ERROR_FILE", "OMP_NUM_THREADS")
    }
    environment = {**kept, "PYTHONPATH": str(REPOSITORY), "NEOX_RANK_DEFAULTS": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_main_that_returns_ends_with_0():
    result = run("print('done')")
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_sigusr2_tells_where_a_rank_is_and_ends_nothing():
    result = run("import signal\nos.kill(os.getpid(), signal.SIGUSR2)\nprint('goes on')")
    assert (result.returncode, result.stdout) == (0, "goes on\n")
    assert "in main" in result.stderr


def test_an_error_of_ours_is_left_for_the_agent_in_silence(tmp_path):
    result = run("raise DataError('no data: make some')", TORCHELASTIC_ERROR_FILE=str(tmp_path / "error"))
    assert (result.returncode, result.stderr) == (1, "")
    record = read_error_record(tmp_path / "error")
    assert (record.text, record.expected) == ("no data: make some", True)


def test_an_unexpected_error_leaves_its_traceback_from_main_on(tmp_path):
    result = run("raise ValueError('odd')", TORCHELASTIC_ERROR_FILE=str(tmp_path / "error"))
    assert (result.returncode, result.stderr) == (1, "")
    lines = read_error_record(tmp_path / "error").text.splitlines()
    assert lines[0].startswith("Traceback")
    assert "in main" in lines[1]
    assert lines[-1] == "ValueError: odd"


def test_without_an_agent_an_error_is_printed_with_the_rank():
    result = run("raise DataError('no data')", RANK="1", LOCAL_RANK="1", WORLD_SIZE="2")
    assert (result.returncode, result.stderr) == (1, "error (rank 1): no data\n")
    result = run("raise DataError('no data')")
    assert (result.returncode, result.stderr) == (1, "error: no data\n")


@pytest.mark.parametrize(
    ("statement", "code"),
    [("sys.exit(4)", 4), ("sys.exit()", 0), ("raise KeyboardInterrupt", 130), ("sys.exit('a reason')", 1)],
)
def test_exit_codes_are_kept(statement, code):
    result = run(statement)
    assert result.returncode == code
    assert "Traceback" not in result.stderr


def test_output_is_not_lost_and_threads_do_not_keep_a_failed_rank_alive():
    body = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nsys.stdout.write('almost')\nraise DataError('x')"
    result = run(body)
    assert (result.returncode, result.stdout) == (1, "almost")


def test_the_status_that_main_returns_is_kept_and_exit_handlers_run():
    result = run("import atexit\natexit.register(print, 'handler')\nreturn 75")
    assert (result.returncode, result.stdout, result.stderr) == (75, "handler\n", "")


def test_a_successful_rank_runs_its_exit_handlers_but_does_not_take_the_interpreter_apart():
    """A native thread that still wants the interpreter then (gloo's, giving a tensor back) would abort the process."""
    body = (
        "import atexit, threading, time\n"
        "class Late:\n    def __del__(self): os.write(1, b'taken apart')\n"
        "sys.modules['late'] = Late()\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "atexit.register(print, 'handler')\n"
        "sys.stdout.write('done, ')"
    )
    result = run(body)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done, handler\n", "")


@pytest.mark.parametrize("printing", ["print(0, flush=True)", "sys.stdout.write('0'); sys.stdout.flush()"])
def test_a_rank_whose_output_nobody_reads_warns_once_and_goes_on(printing):
    body = f"for i in range(3):\n    {printing}\nsys.stderr.write('still here')\nsys.exit(7)"
    reading, writing = os.pipe()
    os.close(reading)
    result = run(body, stdout=writing)
    os.close(writing)
    assert result.returncode == 7
    warning = "nothing can be printed any more (Broken pipe); the run goes on in silence"
    assert result.stderr == f"warning: {warning}\nstill here"


def test_a_closed_terminal_under_a_live_display_ends_nothing():
    """Both streams are gone then, and rich sends one of them through the display, that is, to the other."""
    body = (
        "from rich.console import Console\n"
        "from rich.progress import Progress\n"
        "with Progress(console=Console(force_terminal=True)) as progress:\n"
        "    task = progress.add_task('x')\n"
        "    for i in range(3): progress.update(task, advance=1); progress.console.print(i)\n"
        "sys.exit(7)"
    )
    reading, writing = os.pipe()
    os.close(reading)
    result = run(body, stdout=writing, stderr=writing)
    os.close(writing)
    assert result.returncode == 7


def test_characters_that_the_terminal_lacks_end_nothing():
    result = run("print('\\u2500 \\u00e9', sys.stdout.isatty())", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stdout, result.stderr) == (0, "? ? False\n", "")


def test_wrong_rank_variables_are_an_error_like_any_other():
    result = run("pass", RANK="5", WORLD_SIZE="2", LOCAL_RANK="0")
    assert result.returncode == 1
    assert "contradict each other" in result.stderr


def test_a_rank_started_by_srun_finds_torchs_variables_and_our_defaults():
    slurm = {
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "2",
    }
    environment = {**slurm, "XDG_CACHE_HOME": "/cache", "PYTHONPATH": str(REPOSITORY)}
    code = (
        "import os\nfrom megatron.launcher.worker import run_worker\n"
        "run_worker(lambda: print(*(os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'OMP_NUM_THREADS'))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    rank, world, local, master, threads = result.stdout.split()
    assert (rank, world, local, master) == ("1", "2", "1", "127.0.0.1")
    assert int(threads) >= 1


def test_nothing_is_collected_while_importing_and_nothing_of_it_looked_at_later():
    code = (
        "import gc\nfrom megatron.launcher.worker import importing\n"
        "with importing():\n    print(gc.isenabled())\n    import decimal\n"
        "print(gc.isenabled(), any(each is vars(decimal) for each in gc.get_objects()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout == "False\nTrue False\n"
