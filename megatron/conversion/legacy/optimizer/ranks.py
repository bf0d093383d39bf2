"""The optimizer's state as the files of each model-parallel rank hold it: the parts of its data-parallel ranks joined to vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.conversion.legacy.layout import Layout
from megatron.conversion.legacy.optimizer.content import Content, Run, read_content
from megatron.conversion.legacy.optimizer.vector import Vector
from megatron.conversion.legacy.optimizer.zero_files import WEIGHTS_ALONE, check_files, engine_files, zero_files
from megatron.conversion.reading.pickled import read_pickled
from megatron.errors import CheckpointError

Engine = Mapping[str, Any]
"""What a `mp_rank_..._model_states.pt` holds."""


@dataclass(frozen=True)
class RankState:
    """groups: the vector of each kind ("weight", "exp_avg", ...) of each group of parameters; saved: what the first of the files says besides."""

    engine: Engine
    saved: Mapping[str, Any]
    groups: tuple[Mapping[str, Vector], ...]
    steps: frozenset[int]
    kinds: frozenset[frozenset[str]]


def read_ranks(layout: Layout, *, trusted: bool) -> list[RankState]:
    """Of every model-parallel rank, [] where no optimizer's state was saved. Raises CheckpointError when files are missing or of no known form."""
    engines = engine_files(layout)
    files = zero_files(layout.directory, engines)
    states = []
    for rank, engine_file in engines.items():
        engine = _read(engine_file, trusted=trusted)
        if files:
            saved = [_saved_by_zero(file, trusted=trusted) for file in files[rank]]
            states.append(_rank_state(engine, saved, files[rank]))
            _check_count(layout.directory, rank, states[-1], len(saved))
        elif engine.get("optimizer"):
            states.append(_rank_state(engine, [engine["optimizer"]], [engine_file]))
    if states and len(states) < len(engines):
        raise CheckpointError(
            f"{layout.directory} holds the optimizer's state of some ranks only: copy all files. {WEIGHTS_ALONE}"
        )
    return states


def _read(file: Path, *, trusted: bool) -> Mapping[str, Any]:
    content = read_pickled(file, trusted=trusted)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not values by name. {WEIGHTS_ALONE}")
    return content


def _saved_by_zero(file: Path, *, trusted: bool) -> Mapping[str, Any]:
    saved = _read(file, trusted=trusted).get("optimizer_state_dict")
    if not isinstance(saved, Mapping):
        raise CheckpointError(f"{file} holds no optimizer's state. {WEIGHTS_ALONE}")
    return saved


def _rank_state(engine: Engine, saved: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> RankState:
    contents = [_content(*pair) for pair in zip(saved, files, strict=True)]
    if len({tuple(map(len, content.groups)) for content in contents}) > 1:
        raise CheckpointError(
            f"{files[0].parent} holds files of the optimizer's state of different runs: copy all files. {WEIGHTS_ALONE}"
        )
    # Where a rank has several runs of a group, they take turns: the first run of every rank, then the second ...
    groups = [
        [run for turn in zip(*parts, strict=True) for run in turn]
        for parts in zip(*(c.groups for c in contents), strict=True)
    ]
    return RankState(
        engine,
        saved[0],
        tuple(map(_vectors, groups)),
        frozenset().union(*(content.steps for content in contents)),
        frozenset(frozenset(run) for group in groups for run in group),
    )


def _content(saved: Mapping[str, Any], file: Path) -> Content:
    try:
        return read_content(saved)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = (
            str(error) if isinstance(error, ValueError) else f"it is of no known form, {type(error).__name__}: {error}"
        )
        raise CheckpointError(
            f"the optimizer's state in {file} cannot be taken over: {reason}. {WEIGHTS_ALONE}"
        ) from error


def _vectors(runs: Sequence[Run]) -> dict[str, Vector]:
    kinds = dict.fromkeys(kind for run in runs for kind in run)
    return {kind: Vector(tuple(run[kind] for run in runs if kind in run)) for kind in kinds}


def _check_count(directory: Path, rank: int, state: RankState, there: int) -> None:
    """As many data-parallel ranks must have files as there were."""
    counts = state.saved.get("partition_count", state.engine.get("dp_world_size", there))
    count = max(counts) if isinstance(counts, list | tuple) else int(counts)
    check_files(directory, [(rank, data) for data in range(there, count)])
    if there > count:
        raise CheckpointError(
            f"{directory} holds files of the optimizer's state of {there} data-parallel ranks, and there were {count}: "
            f"remove those of another run. {WEIGHTS_ALONE}"
        )
