"""The reporter hands every step to the screen and to the metric writers; only rank 0 has any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from megatron.components import WRITERS
from megatron.monitor.console import Screen, build_screen
from megatron.monitor.metrics import StepMetrics
from megatron.monitor.writers.base import Writer
from megatron.neox_arguments.monitoring import MonitoringArgs


class Reporter:
    """The one place the training loop tells what happened."""

    def __init__(self, screen: Screen, writers: Sequence[Writer] = ()) -> None:
        self._screen = screen
        self._writers = tuple(writers)

    def summary(self, title: str, facts: Mapping[str, str]) -> None:
        """Show what is about to be trained."""
        self._screen.summary(title, facts)

    def start(self, *, iteration: int, total: int) -> None:
        """Training begins (or goes on) after `iteration` of `total` iterations."""
        self._screen.start(iteration=iteration, total=total)

    def step(self, metrics: StepMetrics) -> None:
        """One step is done."""
        self._write(metrics.iteration, metrics.record())
        self._screen.step(metrics)

    def evaluation(self, part: str, *, iteration: int, values: Mapping[str, float]) -> None:
        """`part` ("validation" or "test") was evaluated after `iteration`."""
        self._write(iteration, {f"{part}/{key}": value for key, value in values.items()})
        described = ", ".join(f"{key} {value:.4f}" for key, value in values.items())
        self._screen.message(f"{part} after iteration {iteration}: {described}")

    def message(self, text: str) -> None:
        """Something happened that is worth a line on the screen."""
        self._screen.message(text)

    def close(self) -> None:
        """Stop the screen and finish every writer."""
        self._screen.stop()
        for writer in self._writers:
            writer.close()

    def _write(self, iteration: int, record: Mapping[str, object]) -> None:
        """A full disk must not end a run that has unsaved progress: a writer that fails is named once and left out from then on."""
        for writer in tuple(self._writers):
            try:
                writer.write(iteration, record)
            except OSError as error:
                self._writers = tuple(other for other in self._writers if other is not writer)
                self._screen.message(
                    f"{type(writer).__name__} cannot write metrics any more ({error}); the run goes on without it"
                )


def build_reporter(args: MonitoringArgs, *, rank: int) -> Reporter:
    """The reporter of this rank: with a screen and the configured writers on rank 0, silent elsewhere."""
    screen = build_screen(rank=rank, log_interval=args.log_interval)
    if rank != 0:
        return Reporter(screen)
    return Reporter(screen, [WRITERS.load(name)(args) for name in writer_names(args)])


def writer_names(args: MonitoringArgs) -> list[str]:
    """The writers that the configuration asks for; `jsonl` always."""
    return ["jsonl", *(["tensorboard"] if args.tensorboard_dir else [])]
