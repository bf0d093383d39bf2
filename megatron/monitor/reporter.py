"""The reporter hands every step to the screen and to the metric writers, which rank 0 has, and others only if they are asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from megatron.components import WRITERS
from megatron.log import get_logger
from megatron.monitor.console import Screen, build_screen
from megatron.monitor.metrics import StepMetrics
from megatron.monitor.writers.base import Process, Writer, WriterFailed
from megatron.neox_arguments.keys.monitoring import MonitoringArgs

logger = get_logger(__name__)


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
        """`part` ("validation", "test", "tasks/piqa") was evaluated after `iteration`."""
        self._write(iteration, {f"{part}/{key}": value for key, value in values.items()})
        described = ", ".join(f"{key} {shown(value)}" for key, value in values.items())
        self._screen.message(f"{part} after iteration {iteration}: {described}")

    def event(self, iteration: int, values: Mapping[str, object], text: str) -> None:
        """Something happened in an iteration that belongs into the metrics and on the screen."""
        self._write(iteration, values)
        self._screen.message(text)

    def message(self, text: str) -> None:
        """Something happened that is worth a line on the screen."""
        self._screen.message(text)

    def close(self, *, failed: bool = False) -> None:
        """Stop the screen and finish every writer. failed: the run ends by an error."""
        self._screen.stop()
        for writer in self._writers:
            try:
                writer.close(failed=failed)
            except (OSError, WriterFailed) as error:
                self._screen.message(
                    f"{type(writer).__name__} could not finish ({error}): its last metrics may be missing"
                )

    def _write(self, iteration: int, record: Mapping[str, object]) -> None:
        """A full disk must not end a run that has unsaved progress: a writer that fails is named once and left out from then on."""
        for writer in tuple(self._writers):
            try:
                writer.write(iteration, record)
            except (OSError, WriterFailed) as error:
                self._writers = tuple(other for other in self._writers if other is not writer)
                self._screen.message(
                    f"{type(writer).__name__} cannot write metrics any more ({error}); the run goes on without it"
                )


def shown(value: float) -> str:
    """A measured value for the screen; the perplexity of long words may have fifteen digits."""
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def build_reporter(args: MonitoringArgs, *, rank: int, resumed: bool = False) -> Reporter:
    """The reporter of this rank, with the writers that the configuration asks for; a screen on rank 0, silent elsewhere.

    resumed: whether the run goes on from a checkpoint.
    """
    screen = build_screen(rank=rank, log_interval=args.log_interval)
    process = Process(rank=rank, resumed=resumed)
    writers: list[Writer] = []
    for name in writer_names(args, rank=rank):
        writer = WRITERS.load(name)
        try:
            writers.append(writer(args, process))
        except WriterFailed as error:
            logger.warning("%s cannot write metrics (%s); the run goes on without it", writer.__name__, error)
    return Reporter(screen, writers)


def writer_names(args: MonitoringArgs, *, rank: int = 0) -> list[str]:
    """The writers of a rank that the configuration asks for; `jsonl` always."""
    if rank != 0:
        return ["wandb"] if args.use_wandb and args.wandb_init_all_ranks else []
    chosen = {"tensorboard": args.tensorboard_dir, "wandb": args.use_wandb, "comet": args.use_comet}
    return ["jsonl", *(name for name, wanted in chosen.items() if wanted)]
