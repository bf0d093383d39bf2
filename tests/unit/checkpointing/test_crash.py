"""SIGKILL at every step of a save: what was there before is still loadable, and the next save cleans up."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from megatron.atomic import sync_directory
from megatron.checkpointing.files import host_name
from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.saving.retention import prune_checkpoints
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.checkpointing.saving.temporaries import clean_directory
from tests.file_changes import READ, SYNCHRONISE, Change, watch_changes
from tests.unit.checkpointing.fakes import fake_engine, full_values, killed

SHAPES = {"a.weight/weight": (6, 5), "a.weight/exp_avg": (6, 5)}
NOBODY = 2**22 + 1
"""A number that no process has."""


def kill_before(number: int, directory: Path) -> None:
    """Arm this process to die by SIGKILL just before its `number`-th change in `directory`; a file that is to be synchronised then may be half written."""
    left = [number]

    def strike() -> bool:
        left[0] -= 1
        return left[0] == 0

    def see(change: Change) -> None:
        if change.kind == READ or not change.inside(directory):
            return
        if change.kind == SYNCHRONISE and change.path.is_file() and strike():
            os.truncate(change.path, change.path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        if strike():
            os.kill(os.getpid(), signal.SIGKILL)

    watch_changes(see)


def kill_points(directory: Path, action: Callable[[], object]) -> Iterator[int]:
    """Run `action` killed at its first change, its second, ... each time in a fresh copy of `directory`, until it survives."""
    pristine = directory.with_name("pristine")
    directory.rename(pristine)
    for number in range(1, 200):
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(pristine, directory)
        if not killed(lambda number=number: (kill_before(number, directory), action())):
            return
        yield number
    raise AssertionError("the action never came to its end")


def loaded_iteration(directory: Path, values_of: dict[int, list[int]]) -> int:
    """The iteration that loads; its tensors must be those of one of the seeds that were saved as it."""
    engine = fake_engine(SHAPES, seed=99)
    loaded = load_checkpoint(directory, engine)
    assert loaded is not None
    assert any(engine.holds(full_values(seed, SHAPES)) for seed in values_of[loaded.iteration])
    return loaded.iteration


def test_every_way_to_change_files_is_seen(tmp_path: Path) -> None:
    """Else the tests below would pass over some steps."""

    def change_files() -> None:
        seen: list[str] = []
        watch_changes(lambda change: seen.append(str(change)) if change.inside(tmp_path) else None)
        (tmp_path / "made").mkdir()
        with (tmp_path / "made" / "file").open("wb") as file:
            os.fsync(file.fileno())
        os.close(os.open(tmp_path / "made" / "other", os.O_WRONLY | os.O_CREAT))
        os.replace(tmp_path / "made" / "file", tmp_path / "made" / "named")
        sync_directory(tmp_path)
        shutil.rmtree(tmp_path / "made")
        changes = [each for each in seen if not each.startswith("read")]
        parent = f"fsync {tmp_path.name}"
        assert changes[:6] == ["mkdir made", "write file", "fsync file", "write other", "rename file -> named", parent]
        assert sorted(changes[6:]) == ["remove named", "remove other", "rmdir made"]

    assert not killed(change_files)


def test_killed_at_any_step_of_a_save_the_previous_checkpoint_loads(memory: Path) -> None:
    directory = memory / "save"
    save_checkpoint(directory, fake_engine(SHAPES).fill(full_values(10, SHAPES)), iteration=10, run_state={})
    engine = fake_engine(SHAPES, seed=3).fill(full_values(20, SHAPES))
    reached = []
    for _ in kill_points(directory, lambda: save_checkpoint(directory, engine, iteration=20, run_state={})):
        reached.append(loaded_iteration(directory, {10: [10], 20: [20]}))
        assert (directory / (directory / "latest").read_text().strip()).is_dir()
        save_checkpoint(directory, engine, iteration=20, run_state={})
        assert sorted(path.name for path in directory.iterdir()) == ["global_step10", "global_step20", "latest"]
        assert loaded_iteration(directory, {20: [20]}) == 20
    assert reached == sorted(reached)
    assert reached.count(10) > 10
    assert 20 in reached


def test_killed_while_replacing_the_only_checkpoint_the_old_or_the_new_one_loads(memory: Path) -> None:
    directory = memory / "save"
    save_checkpoint(directory, fake_engine(SHAPES).fill(full_values(1, SHAPES)), iteration=20, run_state={})
    engine = fake_engine(SHAPES, seed=3).fill(full_values(2, SHAPES))
    for _ in kill_points(directory, lambda: save_checkpoint(directory, engine, iteration=20, run_state={})):
        assert loaded_iteration(directory, {20: [1, 2]}) == 20
        save_checkpoint(directory, engine, iteration=30, run_state={})
        assert sorted(path.name for path in directory.iterdir()) == ["global_step20", "global_step30", "latest"]


def test_killed_while_deleting_old_checkpoints_none_is_left_in_part(memory: Path) -> None:
    directory = memory / "save"
    for iteration in (1, 2, 3):
        save_checkpoint(
            directory, fake_engine(SHAPES).fill(full_values(iteration, SHAPES)), iteration=iteration, run_state={}
        )
    for _ in kill_points(directory, lambda: prune_checkpoints(directory, keep_last=1)):
        assert loaded_iteration(directory, {3: [3]}) == 3
        for path in directory.glob("global_step*"):
            load_checkpoint(path, fake_engine(SHAPES), verification="full")
        save_checkpoint(directory, fake_engine(SHAPES).fill(full_values(3, SHAPES)), iteration=3, run_state={})
        prune_checkpoints(directory, keep_last=1)
        assert sorted(path.name for path in directory.iterdir()) == ["global_step3", "latest"]


def test_killed_while_cleaning_up_nothing_good_is_lost(memory: Path) -> None:
    directory = memory / "save"
    for iteration in (10, 20):
        engine = fake_engine(SHAPES).fill(full_values(iteration, SHAPES))
        save_checkpoint(directory, engine, iteration=iteration, run_state={})
    shutil.copytree(directory / "global_step20", directory / f".tmp-global_step30@{host_name()}@{NOBODY}@00")
    shutil.copytree(directory / "global_step10", directory / ".replaced-global_step10")
    (directory / "global_step20").rename(directory / ".replaced-global_step20")  # killed while it was being replaced
    for _ in kill_points(directory, lambda: clean_directory(directory)):
        assert loaded_iteration(directory, {20: [20]}) == 20
        clean_directory(directory)
        assert sorted(path.name for path in directory.iterdir()) == ["global_step10", "global_step20", "latest"]
        assert loaded_iteration(directory, {20: [20]}) == 20
