"""A person at the standard input of rank 0: lines that can be edited and come back, and what Ctrl-C means while nothing is asked.

Without a terminal, lines are read as they come: no editing, no history, nothing printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType

HISTORY_LINES = 1000


class Keyboard:
    """Asks for prompts, each ended by `prompt_end`. is_terminal: a person sits there, and sees what is printed."""

    def __init__(self, *, prompt_end: str) -> None:
        self.is_terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
        if isinstance(sys.stdin, io.TextIOWrapper):  # or one byte that is no text takes the lines beside it away
            sys.stdin.reconfigure(errors="surrogateescape")
        self._prompt_end = prompt_end
        self._readline = _line_editor() if self.is_terminal else None
        self._lines = 0  # of the prompt that is being typed
        self._dropped = False
        self._prompts = self._typed()

    def prompt(self) -> str | None:
        """The next prompt; None when the person leaves, by the end of input (Ctrl-D) or by Ctrl-C where nothing has been typed.

        Where something has been typed, Ctrl-C drops that. Bytes that are no text come as surrogates.
        """
        while True:
            self._lines = 0
            try:
                return next(self._prompts, None)
            except KeyboardInterrupt:
                self._prompts = self._typed()
                if self.is_terminal:
                    sys.stdout.write("\n")
                if not self._dropped:
                    return None

    def _typed(self) -> Iterator[str]:
        return prompts_of_person(self._line, prompt_end=self._prompt_end)

    def _line(self) -> str:
        """The next line with its line break, an empty text at the end of input."""
        with _signals({signal.SIGINT: self._on_interrupt, signal.SIGTERM: _ending_on_a_sane_terminal()}):
            if not self.is_terminal:
                return sys.stdin.readline() if sys.stdin is not None else ""
            try:
                line = input("| " if self._lines else "> ")
            except EOFError:
                sys.stdout.write("\n")
                return ""
        self._lines += 1
        if self._readline is not None:
            _remember(self._readline)
        return line + "\n"

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C while a line is typed."""
        half = self._readline.get_line_buffer() if self._readline is not None else ""
        self._dropped = bool(self._lines or half)
        raise KeyboardInterrupt


def prompts_of_person(read_line: Callable[[], str], *, prompt_end: str) -> Iterator[str]:
    """Prompts typed by a person, each ended by `prompt_end` (at the end of a line), until the end of input.

    `read_line` returns the next line with its line break, or an empty string at the end of input.
    """
    typed = ""
    while line := read_line():
        typed += line
        if typed.endswith((prompt_end, prompt_end + "\n")):
            yield typed.removesuffix("\n").removesuffix(prompt_end)
            typed = ""
    if typed.strip():
        yield typed


def history_file() -> Path:
    """Where earlier lines are kept, by the convention of the XDG base directories."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "neox" / "prompts"


def _line_editor() -> ModuleType | None:
    """Python's readline with the lines of earlier conversations; None where Python has none."""
    try:
        import readline  # it prints escape codes on some terminals, so it is loaded for one only
    except ImportError:
        return None
    readline.parse_and_bind("tab: self-insert")  # prompts hold code, not names of files
    readline.set_history_length(HISTORY_LINES)
    with contextlib.suppress(OSError, RuntimeError):  # there is none yet, or nobody who could own it
        readline.read_history_file(history_file())
    return readline


def _remember(readline: ModuleType) -> None:
    """Keep the last line for later conversations, where that is possible."""
    with contextlib.suppress(OSError, RuntimeError):
        file = history_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        readline.append_history_file(1, file)


def _ending_on_a_sane_terminal() -> Callable[[int, FrameType | None], None] | signal.Handlers:
    """What SIGTERM does while a line is edited: the terminal is put back as it was before, and the process ends of the signal."""
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, OSError, ValueError, TypeError):  # there is none, or it is closed
        return signal.SIG_DFL

    def end(number: int, frame: FrameType | None) -> None:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return end


@contextlib.contextmanager
def _signals(
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None] | signal.Handlers],
) -> Iterator[None]:
    """Within it, these signals do that."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
