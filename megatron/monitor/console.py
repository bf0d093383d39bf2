"""The screen of rank 0: one summary before training, then progress - a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from megatron.monitor.metrics import StepMetrics


class Screen(Protocol):
    """What the reporter needs of a screen."""

    def summary(self, title: str, facts: Mapping[str, str]) -> None:
        """Show the facts of the run."""
        ...

    def start(self, *, iteration: int, total: int) -> None:
        """Training begins after `iteration` of `total` iterations."""
        ...

    def step(self, metrics: StepMetrics) -> None:
        """One step is done."""
        ...

    def message(self, text: str) -> None:
        """Something happened that is worth a line."""
        ...

    def stop(self) -> None:
        """Training is over; leave the screen usable."""
        ...


class SilentScreen:
    """The screen of all ranks but the first."""

    def summary(self, title: str, facts: Mapping[str, str]) -> None:
        pass

    def start(self, *, iteration: int, total: int) -> None:
        pass

    def step(self, metrics: StepMetrics) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def stop(self) -> None:
        pass


class PlainScreen:
    """One line for the first step, then one every `log_interval` iterations: for log files and pipes."""

    def __init__(self, console: Console, *, log_interval: int) -> None:
        self._console = console
        self._log_interval = log_interval
        self._first = True
        self._total = 0

    def summary(self, title: str, facts: Mapping[str, str]) -> None:
        width = max(map(len, facts), default=0)
        self._print("\n".join([title, *(f"  {key:<{width}}  {value}" for key, value in facts.items())]))

    def start(self, *, iteration: int, total: int) -> None:
        self._total = total

    def step(self, metrics: StepMetrics) -> None:
        if self._first or metrics.iteration % self._log_interval == 0 or metrics.iteration == self._total:
            remaining = duration((self._total - metrics.iteration) * metrics.step_seconds)
            self._print(f"iteration {metrics.iteration}/{self._total} | {step_line(metrics)} | {remaining} left")
        self._first = False

    def message(self, text: str) -> None:
        self._print(text)

    def stop(self) -> None:
        pass

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveScreen:
    """A panel with the facts, then a progress bar that carries the newest step; messages scroll above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            BarColumn(bar_width=None),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=13)),
            TextColumn("{task.fields[line]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None

    def summary(self, title: str, facts: Mapping[str, str]) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold cyan", no_wrap=True)
        table.add_column()
        for key, value in facts.items():
            table.add_row(key, value)
        self._console.print(Panel(table, title=title, expand=False))

    def start(self, *, iteration: int, total: int) -> None:
        self._task = self._progress.add_task("training", total=total, completed=iteration, line="")
        self._progress.start()

    def step(self, metrics: StepMetrics) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=metrics.iteration, line=short_line(metrics))

    def message(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        self._progress.stop()


def build_screen(*, rank: int, log_interval: int) -> Screen:
    """The screen of this rank."""
    if rank != 0:
        return SilentScreen()
    console = Console()
    live = console.is_terminal and not console.is_dumb_terminal  # a dumb one would show no progress before the end
    return LiveScreen(console) if live else PlainScreen(console, log_interval=log_interval)


def short_line(metrics: StepMetrics) -> str:
    """Loss and speed of the newest step, short enough for a terminal of 80 columns with a bar beside it."""
    return " | ".join([f"loss {metrics.loss:.4f}", *_speed(metrics)])


def step_line(metrics: StepMetrics) -> str:
    """All of the newest step that a person watches."""
    parts = [f"loss {metrics.loss:.4f}", f"lr {metrics.lr:.2e}"]
    if metrics.grad_norm is not None:
        parts.append(f"grad norm {metrics.grad_norm:.2f}")
    if metrics.skipped:
        parts.append(f"skipped (loss scale {metrics.loss_scale:g})")
    return " | ".join([*parts, *_speed(metrics), *_pipeline(metrics)])


def _pipeline(metrics: StepMetrics) -> list[str]:
    if metrics.pipeline_bubble is None or metrics.pipeline_bubble_expected is None:
        return []
    stages = " ".join(f"{seconds:.3g}" for seconds in metrics.stage_seconds or ())
    return [
        f"bubble {metrics.pipeline_bubble:.0%} ({metrics.pipeline_bubble_expected:.0%} expected)",
        f"stages {stages} s",
    ]


def _speed(metrics: StepMetrics) -> list[str]:
    if metrics.mfu is None:
        work = f"{metrics.model_flops_per_second / 1e9:,.0f} GFLOP/s"
    else:
        work = f"MFU {metrics.mfu:.1%}"
    return [f"{metrics.tokens_per_second:,.0f} tokens/s", work]


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
