"""Asks a program that is not ours something, and takes whatever it prints."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence

LAST_SECONDS = 1.0
"""Seconds for a program to end once it is killed."""


def ask_program(
    argv: Sequence[str], *, seconds: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. Raises OSError when it cannot be run, TimeoutExpired, with what it printed, when it takes longer than `seconds`.

    `subprocess.run` would then wait until the program has died of SIGKILL; one that the kernel keeps waiting for a device that is gone never does.
    """
    pipe = subprocess.PIPE
    child = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    try:
        output, errors = child.communicate(timeout=seconds)
    except BaseException:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LAST_SECONDS)
        raise
    finally:
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()
    return subprocess.CompletedProcess(
        argv, child.returncode, output.decode(errors="replace"), errors.decode(errors="replace")
    )
