"""A power failure at every step of a save: whatever was not synchronised may be lost, and still a whole checkpoint loads."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.saving.retention import prune_checkpoints
from megatron.checkpointing.saving.save import save_checkpoint
from tests.file_changes import READ, SYNCHRONISE, Change, watch_changes
from tests.unit.checkpointing.fakes import fake_engine, full_values, killed
from tests.unit.checkpointing.lost_writes import Disk
from tests.unit.checkpointing.test_crash import SHAPES, loaded_iteration

MIXTURES = 2
"""Beside what is surely on the disk, so many mixtures with what may be there at each step."""


def save(directory: Path, iteration: int, seed: int) -> None:
    engine = fake_engine(SHAPES, seed=seed).fill(full_values(seed, SHAPES))
    save_checkpoint(directory, engine, iteration=iteration, run_state={})


def failures(disk: Path, action: Callable[[], object]) -> Iterator[tuple[Path, bool]]:
    """What a power failure leaves of the directory `disk` before each change that `action` makes, and whether it came after the last one."""
    found = disk.with_name("found")
    found.mkdir()

    def recorded() -> None:
        model = Disk(disk)
        steps = [0]

        def fail() -> None:
            for mixture in range(1 + MIXTURES):
                dice = random.Random(f"{steps[0]} {mixture}") if mixture else None
                model.fail(found / f"{steps[0]:03} {mixture}", dice)
            steps[0] += 1

        def see(change: Change) -> None:
            if change.kind == READ or not change.inside(disk):
                return
            fail()
            if change.kind == SYNCHRONISE:
                model.synchronise(change.path)

        watch_changes(see)
        action()
        fail()

    assert not killed(recorded)
    states = sorted(found.iterdir())
    assert len(states) > 10 * (1 + MIXTURES)
    for state in states:
        yield state, state.name[:3] == states[-1].name[:3]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_after_a_power_failure_in_a_save_the_old_or_the_new_checkpoint_loads(memory: Path) -> None:
    save(memory / "disk", 10, 1)
    reached = set()
    for left, ended in failures(memory / "disk", lambda: save(memory / "disk", 20, 2)):
        reached.add(loaded_iteration(left, {10: [1], 20: [2]}))
        if ended:
            assert loaded_iteration(left, {20: [2]}) == 20
        save(left, 20, 2)
        save(left, 30, 3)
        assert names(left) == ["global_step10", "global_step20", "global_step30", "latest"]
    assert reached == {10, 20}


def test_what_was_saved_into_a_new_directory_is_there_after_a_power_failure(memory: Path) -> None:
    (memory / "disk").mkdir()
    for left, ended in failures(memory / "disk", lambda: save(memory / "disk" / "new" / "save", 10, 1)):
        if ended:
            assert loaded_iteration(left / "new" / "save", {10: [1]}) == 10


def test_after_a_power_failure_in_a_replacement_the_old_or_the_new_one_loads(memory: Path) -> None:
    save(memory / "disk", 20, 1)
    for left, ended in failures(memory / "disk", lambda: save(memory / "disk", 20, 2)):
        assert loaded_iteration(left, {20: [2] if ended else [1, 2]}) == 20


def test_after_a_power_failure_in_pruning_no_checkpoint_is_left_in_part(memory: Path) -> None:
    for iteration in (1, 2, 3):
        save(memory / "disk", iteration, iteration)
    for left, ended in failures(memory / "disk", lambda: prune_checkpoints(memory / "disk", keep_last=1)):
        assert loaded_iteration(left, {3: [3]}) == 3
        for path in left.glob("global_step*"):
            load_checkpoint(path, fake_engine(SHAPES), verification="full")
        if ended:
            assert names(left) == ["global_step3", "latest"]
