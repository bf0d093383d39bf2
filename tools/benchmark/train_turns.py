"""Processes that take turns: each has something to measure, is started with its own environment, and does a part of it when it is told to."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
CHILD = Path(__file__).resolve().parent / "train_child.py"


class WayFailed(Exception):
    """A way cannot be measured; the message says why."""


class Child:
    """A process that serves `train_child.py`'s protocol. log: where what it writes goes."""

    def __init__(self, job: Mapping[str, Any], *, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=dict(environment),
                encoding="utf-8",
            )
        self._tell(job)

    def steps(self, count: int, *, seconds: float) -> Answer:
        """Have it take so many steps. Raises WayFailed when it cannot, or takes longer than so many seconds."""
        self._tell({"steps": count})
        return self.answer(seconds=seconds)

    def answer(self, *, seconds: float) -> Answer:
        """Its next one. Raises WayFailed when it says that it has failed, when it has ended, or when none comes in time."""
        assert self.process.stdout
        timer = threading.Timer(max(seconds, 0.0), self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            is_late = not timer.is_alive()
            timer.cancel()
        if not line:
            self.process.wait()
            raise WayFailed(f"took longer than {seconds:.0f} s" if is_late else self._last_words())
        answer: Answer = json.loads(line)
        if "failed" in answer:
            raise WayFailed(answer["failed"])
        return answer

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe and pipe.close()

    def _tell(self, command: Mapping[str, Any]) -> None:
        assert self.process.stdin
        with contextlib.suppress(OSError):  # whoever has ended is asked for its answer next
            print(json.dumps(command), file=self.process.stdin, flush=True)

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"ended with status {self.process.returncode}: {lines[-1].strip()[:200] if lines else 'without a word'}"


def on_each(
    children: Mapping[str, Child], ask: Callable[[Child], Answer], *, together: bool
) -> tuple[dict[str, Answer], dict[str, str]]:
    """What each answers, and why those failed that did; all at a time, or one after the other."""

    def attempt(child: Child) -> Answer | WayFailed:
        try:
            return ask(child)
        except WayFailed as failure:
            return failure

    with ThreadPoolExecutor(max(1, len(children)) if together else 1) as pool:
        results = dict(zip(children, pool.map(attempt, children.values()), strict=True))
    failed = {name: str(result) for name, result in results.items() if isinstance(result, WayFailed)}
    return {name: result for name, result in results.items() if not isinstance(result, WayFailed)}, failed


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Who comes when in round number `turn`: another one begins each time."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]
