"""What every data command does around its work: a user's mistake becomes one message, and each way to end has its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from megatron.errors import NeoXError

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count
TERMINATED = 143  # 128 + SIGTERM


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run `main` and exit: 0, 1 after a NeoXError (its message goes to stderr, without a traceback), 130 or 143 when stopped.

    SIGTERM unwinds the stack like Ctrl-C does, so that files under way are removed and worker processes end.
    """
    signal.signal(signal.SIGTERM, _unwind)
    try:
        main()
    except NeoXError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was left half written\n")
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)
