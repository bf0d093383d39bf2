"""A pseudo-terminal with a program at it, and someone who types and reads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CTRL_C, CTRL_D, UP, BACKSPACE = "\x03", "\x04", "\x1b[A", "\x7f"


class Terminal:
    """process: the program; printed: all it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.printed = ""
        self._master = master
        self._seen = 0

    @property
    def settings(self) -> list[Any]:
        """How the terminal treats keys."""
        return termios.tcgetattr(self._master)

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._master, keys.encode(errors="surrogateescape"))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program once it waits for keys: one that comes between its prompt and that counts only with the next key.

        SIGINT is sent by pressing Ctrl-C.
        """
        end = time.monotonic() + 60
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < end, "the program does not wait for keys"
            time.sleep(0.01)
        if number == signal.SIGINT:
            self.type(CTRL_C)
        else:
            self.process.send_signal(number)

    def await_text(self, text: str, *, seconds: float = 60) -> None:
        """Wait until `text` is printed, after what was awaited before."""
        end = time.monotonic() + seconds
        while (found := self.printed.find(text, self._seen)) < 0:
            assert time.monotonic() < end, f"{text!r} does not come: {self.printed!r}"
            self._take()
        self._seen = found + len(text)

    def await_more(self, count: int, *, seconds: float = 60) -> None:
        """Wait until so many characters more are printed."""
        end = time.monotonic() + seconds
        while len(self.printed) < self._seen + count:
            assert time.monotonic() < end, f"no {count} characters come: {self.printed!r}"
            self._take()

    def _take(self) -> None:
        if select.select([self._master], [], [], 0.1)[0]:
            self.printed += os.read(self._master, 1 << 16).decode(errors="replace")


@contextlib.contextmanager
def at_terminal(
    command: Sequence[str], *, environment: Mapping[str, str], directory: os.PathLike[str]
) -> Iterator[Terminal]:
    """The program at a terminal that is its own, so that Ctrl-C there is a signal to it; it is killed in the end."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        command,
        cwd=directory,
        env={**environment, "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)
