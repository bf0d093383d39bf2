"""Why a run failed: a rank leaves a record of its error in a file, and the agent tells the first cause, once.

When one rank fails, the others soon fail too, because their connections to it break. Printing every traceback buries the cause, so
ranks stay silent and write a record; the agent picks the record of the rank that failed first. The file is the one that torch's
elastic agent asks for (TORCHELASTIC_ERROR_FILE) and in its format, so `torchrun train.py` shows the same message in its report.
"""

from __future__ import annotations

import json
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from megatron.errors import NeoXError
from megatron.stopping import POLITE_SIGNALS, status_of_signal

ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
EXIT_INTERRUPTED = 130
"""Exit code of a rank that SIGINT interrupted (128 + 2, as shells have it)."""


@dataclass(frozen=True)
class ErrorRecord:
    """What a rank wrote before it exited: a complete text (a sentence of ours, or a traceback) and when (seconds since the epoch).

    may_pass: whether the ranks may get through when they are started again.
    """

    text: str
    expected: bool
    time: float
    may_pass: bool = True


@dataclass(frozen=True)
class Failure:
    """One rank that did not end well.

    exit_code: as subprocess tells it, negative for a signal; node: its machine, where there are several; last_words: what it printed last, when
    that was not on the console and it left no record.
    """

    rank: int
    exit_code: int
    record: ErrorRecord | None = None
    node: str | None = None
    last_words: str = ""

    @property
    def where(self) -> str:
        """The rank, and its machine where there are several."""
        return f"rank {self.rank} on {self.node}" if self.node else f"rank {self.rank}"

    def to_message(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_message(cls, content: Mapping[str, Any], *, node: str | None, later: float = 0.0) -> Self:
        """What `to_message` gave, after a journey as JSON. node: where it comes from; later: seconds to add to its times, to suit our clock."""
        record = content["record"]
        if record is not None:
            record = ErrorRecord(**{**record, "time": record["time"] + later})
        return cls(**{**content, "record": record, "node": node})

    @property
    def exit_status(self) -> int:
        """What the launcher exits with on behalf of the rank: its exit code, or 128 + signal."""
        return status_of_signal(-self.exit_code) if self.exit_code < 0 else self.exit_code

    @property
    def polite_signal(self) -> signal.Signals | None:
        """The polite signal that ended the rank without a save: it says so, or did not listen yet; None when it ended otherwise."""
        if self.record is not None:
            return None
        return next((each for each in POLITE_SIGNALS if self.exit_status == status_of_signal(each)), None)

    @property
    def may_pass(self) -> bool:
        """Whether the ranks may get through when they are started again: after a crash, not after a mistake or a stop."""
        return self.polite_signal is None if self.record is None else self.record.may_pass


def write_error_record(path: str | Path, error: BaseException) -> None:
    """Write the error of this rank to `path`, replaced in one step."""
    expected = isinstance(error, NeoXError)
    text = str(error) if expected else "".join(traceback.format_exception(error)).rstrip()
    may_pass = error.may_pass if isinstance(error, NeoXError) else True
    now = time.time()
    details = {
        "py_callstack": text,
        "timestamp": str(int(now)),
        "time": now,
        "expected": expected,
        "may_pass": may_pass,
    }
    content = {"message": {"message": f"{type(error).__name__}: {error}", "extraInfo": details}}
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial")
    partial.write_text(json.dumps(content))
    partial.replace(target)


def read_error_record(path: str | Path) -> ErrorRecord | None:
    """The record at `path`; None when the rank left none or was cut off while writing."""
    try:
        details: Mapping[str, object] = json.loads(Path(path).read_text())["message"]["extraInfo"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ErrorRecord(
        str(details["py_callstack"]),
        bool(details.get("expected", False)),
        float(str(details.get("time", 0))),
        bool(details.get("may_pass", True)),
    )


def first_cause(failures: Sequence[Failure]) -> Failure:
    """The failure that brought the others about.

    A rank that died without a record was killed or left the interpreter by force, which a broken connection does not do to it
    (except SIGABRT, with which NCCL's watchdog ends a rank that waits for a dead peer, and SIGTERM), so it comes before those
    with a record; among these the earliest counts.
    """
    return min(failures, key=_precedence)


def describe_failure(failure: Failure, *, world_size: int) -> str:
    """The lines a user sees at the end."""
    if failure.record is not None:
        where = f" ({failure.where})" if world_size > 1 else ""
        separator = " " if failure.record.expected and "\n" not in failure.record.text else "\n"
        return f"error{where}:{separator}{failure.record.text}"
    printed = f"; it printed last:\n{failure.last_words}" if failure.last_words else ""
    if failure.exit_code < 0:
        number = -failure.exit_code
        return f"error: {failure.where} {killed_by(number)}{_hint(number) or printed}"
    return f"error: {failure.where} exited with code {failure.exit_code}{printed}"


def killed_by(number: int) -> str:
    """What is said of a process that a signal ended."""
    return f"was killed by signal {number} ({_signal_name(number)})"


def _precedence(failure: Failure) -> tuple[int, float]:
    if failure.record is not None:
        return 1, failure.record.time
    return (2 if failure.exit_code in (-signal.SIGABRT, -signal.SIGTERM) else 0), 0.0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _hint(number: int) -> str:
    return "; often that is the kernel, out of memory (see `dmesg`)" if number == signal.SIGKILL else ""
