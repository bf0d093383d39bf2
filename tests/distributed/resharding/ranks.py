"""What a forked rank does: the run of a user, from configuration and data on disk to checkpoints, begun or gone on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.initialize import World, join_world
from megatron.neox_arguments import NeoXArgs
from megatron.training.loop import train
from megatron.training.setup import build_run
from tests.distributed.matrix.cell import Grid
from tests.distributed.matrix.double import fp64_engines
from tests.distributed.matrix.ranks import temporary_groups
from tests.distributed.resharding.cases import HALF, Layout, Training, settings


@dataclass(frozen=True)
class Start:
    """A start of a run that saves into `directory`.

    source: where to go on from, after HALF steps, which are then saved anew before anything else; data: prefix of the dataset;
    trains: whether to make the steps that are left; plant: makes the context in which it runs, to change what it does.
    """

    training: Training
    layout: Layout
    data: Path
    directory: Path
    source: Path | None = None
    trains: bool = True
    plant: Callable[[], AbstractContextManager[Any]] = nullcontext


def start_on_rank(rank: int, starts: Sequence[Start]) -> None:
    """Make these starts one after another."""
    for start in starts:
        try:
            with fp64_engines() if start.training.precision == "fp64" else nullcontext(), start.plant():
                _run(start)
        except Exception as error:
            raise RuntimeError(f"{start.training.name} in {start.layout}") from error


def _run(start: Start) -> None:
    places = {"data_path": str(start.data), "save": str(start.directory), "log_dir": str(start.directory)}
    source = {} if start.source is None else {"load": str(start.source), "iteration": HALF}
    args = NeoXArgs.from_dict({**settings(start.training, start.layout), **places, **source})
    world = _world(start.layout.grid, args)
    with temporary_groups():
        run, state = build_run(args, world)
        if start.source is not None:
            run.checkpointer.save(state)
        if start.trains:
            run.checkpointer.finish(train(run, state))
        run.reporter.close()
        run.engine.library_engine.destroy()  # type: ignore[attr-defined]


_known_worlds: dict[Grid, World] = {}


def _world(grid: Grid, args: NeoXArgs) -> World:
    """The place in a grid, taken when it is first needed and kept for later starts."""
    if grid not in _known_worlds:
        _known_worlds[grid] = join_world(args)
    return _known_worlds[grid]
