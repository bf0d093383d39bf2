"""How a rank that hangs takes its leave: it prints where its threads are, leaves the reason for the launcher, and exits from any thread."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
from typing import IO, Any

from megatron.errors import PassingError
from megatron.launcher.failure import ERROR_FILE_VARIABLE, write_error_record


def stall_message(reason: str, timeout: float) -> str:
    """What the run ends with."""
    return (
        f"the run hangs: no step was finished in the time it may take (step_timeout is {timeout:g} s). {reason[:1].upper()}{reason[1:]}. "
        "The Python stacks of the ranks that answer are printed above; start the run again to go on from its last checkpoint"
    )


def dump_stacks(title: str, file: IO[str] | None = None) -> None:
    """Print where every thread of this process is."""
    stream: Any = file or sys.stderr
    with contextlib.suppress(OSError, ValueError):
        stream.write(f"{title}\n")
        stream.flush()
        faulthandler.dump_traceback(stream, all_threads=True)


def exit_with(reason: str) -> None:
    """Leave the reason for the launcher to print, or print it, and end this process from whatever thread."""
    path = os.environ.get(ERROR_FILE_VARIABLE)
    if path:
        write_error_record(path, PassingError(reason))
    else:
        sys.stderr.write(f"error: {reason}\n")
        sys.stderr.flush()
    os._exit(1)
