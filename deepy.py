#!/usr/bin/env python
"""The front door: `deepy.py train.py CONFIG... [key=value ...]` runs a script, `deepy.py check|explain|plan|parity|doctor CONFIG...` looks at configs and machines."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # what is imported here is imported before Ctrl-C is answered
    from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: of the first failing rank, 1 for a mistake in a config, 2 for one on the command line, else 0.

    That of a run is 75 when it was cut short and saved: the same command goes on (megatron/stopping.py).
    """
    from megatron.components import COMMANDS
    from megatron.errors import ConfigError, NeoXError

    words = list(sys.argv[1:] if argv is None else argv)
    name, rest = (words[0], words[1:]) if words and words[0] in COMMANDS else ("run", words)
    command: Callable[[Sequence[str]], int] = COMMANDS.load(name)
    try:
        return command(rest)
    except NeoXError as error:
        problems = error.problems if isinstance(error, ConfigError) else (str(error),)
        sys.stderr.write("".join(f"error: {problem}\n" for problem in problems))
        return 1


def interrupt(number: int, frame: object) -> None:
    """Ctrl-C, until something listens to it that has started processes."""
    interrupts.append(number)
    raise KeyboardInterrupt


interrupts: list[int] = []

if __name__ == "__main__":
    # The other imports are within, so that Ctrl-C is answered from the first moment on.
    try:
        import signal

        signal.signal(signal.SIGINT, interrupt)
        sys.exit(main())
    except SystemExit:
        raise
    except BaseException as error:
        # Compiled code may make an error of its own of a KeyboardInterrupt (pydantic's SchemaError and PanicException).
        if not (interrupts or isinstance(error, KeyboardInterrupt)):
            raise
        sys.stderr.write("interrupted: nothing was started\n")
        sys.exit(130)
