"""What every data command does around its work: a user's mistake becomes one message, and each way to end has its exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from megatron.errors import NeoXError

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count
TERMINATED = 143  # 128 + SIGTERM


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run `main` and exit: 0; 1 after a NeoXError or when a file cannot be read or written (one sentence on stderr); 130 or 143 when stopped.

    SIGTERM unwinds the stack like Ctrl-C does, so that files under way are removed and worker processes end.
    """
    signal.signal(signal.SIGTERM, _unwind)
    try:
        main()
        with writing_output():
            sys.stdout.flush()
    except NeoXError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(FAILED)
    except OSError as error:  # what no place that knew more has told
        sys.stderr.write(f"{error.filename or 'a file'} cannot be read or written: {error.strerror or error}.\n")
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was left half written\n")
        sys.exit(INTERRUPTED)
    sys.exit(0)


def say(text: str) -> None:
    """A line of the output. Raises NeoXError as `writing_output` does."""
    with writing_output():
        sys.stdout.write(f"{text}\n")


@contextlib.contextmanager
def writing_output() -> Iterator[None]:
    """Around what is written to the output. A reader that has gone (`| head`) is no mistake: what else is written goes nowhere.

    Raises NeoXError when the output cannot be written, e.g. on a full disk.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # for what is still in the buffer when the program ends
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise NeoXError(f"the output cannot be written ({error.strerror}): choose another place for it") from None


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)
