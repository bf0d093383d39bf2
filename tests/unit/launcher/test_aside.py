"""Programs beside each other, with their output in files, none of which stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from megatron.launcher.aside import Program, run_aside

SLEEP = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); import time; time.sleep(60)"


def program(log: Path, code: str, *words: object, **environment: str) -> Program:
    return Program((sys.executable, "-I", "-c", code, *map(str, words)), log, environment)


def test_both_outputs_are_in_the_file(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['ADDED'], flush=True); print('error', file=sys.stderr)"
    assert run_aside([program(tmp_path / "log", code, ADDED="yes")]) == [0]
    assert (tmp_path / "log").read_text() == "yes\nerror\n"


def test_one_that_fails_ends_the_others(tmp_path: Path) -> None:
    begin = time.monotonic()
    codes = run_aside(
        [program(tmp_path / "a", SLEEP, tmp_path / "pid"), program(tmp_path / "b", "raise SystemExit(3)")]
    )
    assert codes == [None, 3]
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_leaves_nothing_running(number: int, raised: type[BaseException], tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(raised):
        run_aside([program(tmp_path / "log", SLEEP, tmp_path / "pid")])
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((OSError, subprocess.SubprocessError)):
        run_aside([Program((str(tmp_path / "nothing"),), tmp_path / "log")])
