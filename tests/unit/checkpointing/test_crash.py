"""SIGKILL at every step of a save: what was there before is still loadable, and the next save cleans up."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron.checkpointing import storage
from megatron.checkpointing.load import load_checkpoint
from megatron.checkpointing.retention import prune_checkpoints
from megatron.checkpointing.save import save_checkpoint
from tests.unit.checkpointing.fakes import fake_engine, full_values, killed

SHAPES = {"a.weight/weight": (6, 5), "a.weight/exp_avg": (6, 5)}
EFFECTS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: a process is killed here a hundred times, a disk is not."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def kill_before(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arm this process to die by SIGKILL just before its `number`-th change to the file system, in the middle of one if it writes."""
    left = [number]

    def strike() -> bool:
        left[0] -= 1
        return left[0] == 0

    def fatal(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if strike():
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    def half_written(self: storage.HashedFile, data: Any) -> int:
        if strike():
            os.write(self.fileno(), memoryview(data).cast("B")[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, data)

    write = storage.HashedFile.write
    monkeypatch.setattr(storage.HashedFile, "write", half_written)
    for name in EFFECTS:
        monkeypatch.setattr(os, name, fatal(getattr(os, name)))


def kill_points(directory: Path, action: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Run `action` killed at its first change, its second, ... each time in a fresh copy of `directory`, until it survives."""
    pristine = directory.with_name("pristine")
    directory.rename(pristine)
    for number in range(1, 200):
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(pristine, directory)
        with monkeypatch.context() as armed:
            died = killed(lambda number=number, armed=armed: (kill_before(number, armed), action()))
        if not died:
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


def test_killed_at_any_step_of_a_save_the_previous_checkpoint_loads(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = memory / "save"
    save_checkpoint(directory, fake_engine(SHAPES).fill(full_values(10, SHAPES)), iteration=10, run_state={})
    engine = fake_engine(SHAPES, seed=3).fill(full_values(20, SHAPES))
    reached = []
    for _ in kill_points(
        directory, lambda: save_checkpoint(directory, engine, iteration=20, run_state={}), monkeypatch
    ):
        reached.append(loaded_iteration(directory, {10: [10], 20: [20]}))
        assert (directory / (directory / "latest").read_text().strip()).is_dir()
        save_checkpoint(directory, engine, iteration=20, run_state={})
        assert sorted(path.name for path in directory.iterdir()) == ["global_step10", "global_step20", "latest"]
        assert loaded_iteration(directory, {20: [20]}) == 20
    assert reached == sorted(reached)
    assert reached.count(10) > 10
    assert 20 in reached


def test_killed_while_replacing_the_only_checkpoint_the_old_or_the_new_one_loads(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = memory / "save"
    save_checkpoint(directory, fake_engine(SHAPES).fill(full_values(1, SHAPES)), iteration=20, run_state={})
    engine = fake_engine(SHAPES, seed=3).fill(full_values(2, SHAPES))
    for _ in kill_points(
        directory, lambda: save_checkpoint(directory, engine, iteration=20, run_state={}), monkeypatch
    ):
        assert loaded_iteration(directory, {20: [1, 2]}) == 20
        save_checkpoint(directory, engine, iteration=30, run_state={})
        assert sorted(path.name for path in directory.iterdir()) == ["global_step20", "global_step30", "latest"]


def test_killed_while_deleting_old_checkpoints_none_is_left_in_part(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = memory / "save"
    for iteration in (1, 2, 3):
        save_checkpoint(
            directory, fake_engine(SHAPES).fill(full_values(iteration, SHAPES)), iteration=iteration, run_state={}
        )
    for _ in kill_points(directory, lambda: prune_checkpoints(directory, keep_last=1), monkeypatch):
        assert loaded_iteration(directory, {3: [3]}) == 3
        for path in directory.glob("global_step*"):
            load_checkpoint(path, fake_engine(SHAPES), verification="full")
        save_checkpoint(directory, fake_engine(SHAPES).fill(full_values(3, SHAPES)), iteration=3, run_state={})
        prune_checkpoints(directory, keep_last=1)
        assert sorted(path.name for path in directory.iterdir()) == ["global_step3", "latest"]
