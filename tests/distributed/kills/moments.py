"""Moments of a run at which it is killed: named places in saving, loading and pruning, and points in time.

A place is a change that a rank is about to make to the directory of checkpoints, seen from outside the program (tests/file_changes.py):
the named step of the real code, wherever that lies and in whichever thread it runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from megatron.checkpointing.files import TEMPORARY_PREFIX
from megatron.checkpointing.layout import LATEST, REPLACED_PREFIX, checkpoint_name
from tests.file_changes import READ, SYNCHRONISE, Change

CHECKPOINT = checkpoint_name(0).removesuffix("0")
NEW = f"{TEMPORARY_PREFIX}{CHECKPOINT}"
SAVED_AGAIN = f"{TEMPORARY_PREFIX}{REPLACED_PREFIX}{CHECKPOINT}"
TIME = "any moment"
STEP = "training"


def _is_tensors(change: Change) -> bool:
    return change.path.name.endswith(".distcp")


def _renames(change: Change, old: str, new: str) -> bool:
    return (
        change.kind == "rename"
        and _begins(change.path.name, old)
        and _begins(change.target and change.target.name, new)
    )


def _begins(name: str | None, beginning: str) -> bool:
    return (name or "").startswith(beginning)


def _is_being_deleted(change: Change) -> bool:
    """Whether a checkpoint that is no longer needed has been set aside and loses its files."""
    return change.kind == "remove" and _is_tensors(change)


PLACES: dict[str, Callable[[Change], bool]] = {
    "reading tensors": lambda change: change.kind == READ and _is_tensors(change),
    "making the directory": lambda change: change.kind == "mkdir" and _begins(change.path.name, NEW),
    "writing tensors": lambda change: change.kind == SYNCHRONISE and _is_tensors(change),
    "writing the state": lambda change: change.kind == SYNCHRONISE and change.path.name == "state.json",
    "writing the manifest": lambda change: change.kind == SYNCHRONISE and change.path.name == "manifest.json",
    "naming the checkpoint": lambda change: _renames(change, NEW, CHECKPOINT),
    "pointing latest at it": lambda change: change.kind == "rename" and (change.target or change.path).name == LATEST,
    "setting the old one aside": lambda change: _renames(change, CHECKPOINT, REPLACED_PREFIX),
    "dropping the replaced one": lambda change: _renames(change, REPLACED_PREFIX, TEMPORARY_PREFIX),
    "pruning": lambda change: _renames(change, CHECKPOINT, TEMPORARY_PREFIX),
    "deleting the pruned one": _is_being_deleted,
}


@dataclass(frozen=True)
class Moment:
    """When the run is killed: at the `number`-th time that rank `rank` comes to `place`, once `number` steps are made (STEP), or after so many
    `seconds`, and at most so many steps (TIME).

    What is being written when it happens is half written. alone: only that rank is killed, and the others have to notice.
    """

    place: str
    number: int = 1
    seconds: float = 0.0
    rank: int = 0
    alone: bool = False

    def __str__(self) -> str:
        when = f"{self.seconds:.2f} s" if self.place == TIME else f"{self.place} ({self.number})"
        return f"{when}, rank {self.rank} alone" if self.alone else when


def draw(dice: random.Random, *, seconds: float, steps: int) -> list[Moment]:
    """Twenty moments. seconds: until a killed run has started and made the steps it is to make; steps: their number.

    A run killed before `latest` is written resumes from the checkpoint before, and then replaces the one that is there: the moments
    of a replacement follow one of those. It is the second one of a launch, as before a first checkpoint there is none to resume from.
    """

    def at(place: str, *, rank: int = 0, alone: bool = False, number: int | None = None) -> Moment:
        return Moment(place, number or dice.randint(1, 2), rank=rank, alone=alone)

    before_latest = at("pointing latest at it", number=2)
    again = [
        [before_latest, at("setting the old one aside", number=1)],
        [before_latest, at("naming the checkpoint", number=1), at("dropping the replaced one", number=1)],
    ]
    reading = [at("reading tensors", number=1), at("reading tensors", number=1, rank=1, alone=True)]
    single = [
        at("making the directory"),
        at("writing tensors", rank=dice.randrange(2)),
        at("writing tensors", rank=1, alone=True),
        at("writing the manifest", alone=True),
        at("writing the state"),
        at("pruning", number=1),
        at("deleting the pruned one", number=1),
        Moment(STEP, dice.randint(1, steps), rank=1, alone=True),
    ]
    timed = [Moment(TIME, steps, seconds=dice.uniform(0, seconds)) for _ in range(5)]
    blocks = [*again, *([moment] for moment in (*single, *timed))]
    dice.shuffle(blocks)
    something_saved = 1 + min(blocks.index(block) for block in again)
    for moment in reading:
        blocks.insert(dice.randint(something_saved, len(blocks)), [moment])
    return [moment for block in blocks for moment in block]
