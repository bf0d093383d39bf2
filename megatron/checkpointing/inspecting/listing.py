"""The checkpoints of a directory: how old and how large each is, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from megatron.checkpointing.inspecting.contents import size_of, time_of
from megatron.checkpointing.inspecting.lines import Line, columns, heading
from megatron.checkpointing.inspecting.page import age, size_text
from megatron.checkpointing.layout import existing_checkpoints, latest_problem, read_latest
from megatron.checkpointing.manifest import check_files
from megatron.checkpointing.state_file import read_state
from megatron.errors import CheckpointError


@dataclass(frozen=True)
class Listed:
    """A checkpoint in a directory. problem: what is wrong with it, empty when it is complete; size and saved_at are not known then."""

    iteration: int
    path: Path
    problem: str
    size: int | None
    saved_at: datetime | None
    is_latest: bool


@dataclass(frozen=True)
class Listing:
    """The checkpoints by rising iteration. problem: why `latest` cannot be followed, empty when it can."""

    directory: Path
    checkpoints: tuple[Listed, ...]
    problem: str


def list_directory(directory: Path) -> Listing:
    """What is in a directory of checkpoints; names, sizes and the small files of each are checked."""
    latest = read_latest(directory)
    found = [
        _listed(one.iteration, one.path, is_latest=one.iteration == latest) for one in existing_checkpoints(directory)
    ]
    return Listing(directory, tuple(found), latest_problem(directory) or "")


def listing_lines(listing: Listing, *, chosen: Path | None, now: datetime) -> Iterator[Line]:
    """A line for each checkpoint. chosen: the one that loading takes."""
    yield heading(f"checkpoints in {listing.directory}")
    rows = [[(text, "dim") for text in ("", "iteration", "size", "saved", "state")]]
    for one in listing.checkpoints:
        size = "" if one.size is None else size_text(one.size)
        saved = "" if one.saved_at is None else age(one.saved_at, now=now)
        state = (one.problem or "complete", "red" if one.problem else "green")
        mark = "->" if one.path == chosen else ""
        named = f"{one.iteration:,}{' (latest)' if one.is_latest else ''}"
        rows.append([(f"  {mark}", "bold"), (named, ""), (size, ""), (saved, ""), state])
    yield from columns(rows, right=(2,))
    if listing.problem:
        yield [(f"  {listing.problem}", "yellow")]


def _listed(iteration: int, path: Path, *, is_latest: bool) -> Listed:
    try:
        check_files(path)
        return Listed(iteration, path, "", size_of(path), time_of(read_state(path)), is_latest)
    except CheckpointError as error:
        return Listed(iteration, path, str(error), None, None, is_latest)
