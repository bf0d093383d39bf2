"""Checkpoints written and read by several ranks: any cut into any other, failures known to all, a rank that dies."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.manifest import check_files
from megatron.checkpointing.saving import hashing_writer, save
from megatron.checkpointing.saving.retention import prune_checkpoints
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.engine.protocol import FullTensor, Piece
from megatron.mpu.groups import Group
from tests.unit.checkpointing.fakes import FakeEngine, fake_engine, full_values
from tests.worlds import error_of, run_world

CASES = 6
RUN_STATE = {"iteration": 1, "consumed_samples": 123}


def world(rank: int) -> Group:
    size = dist.get_world_size()
    return Group(rank, size, tuple(range(size)), dist.group.WORLD)


def engine_of(rank: int, seed: int) -> FakeEngine:
    return fake_engine(seed=seed, rank=rank, world=world(rank))


def save_cases(rank: int, directory: Path) -> None:
    for case in range(CASES):
        engine = engine_of(rank, seed=100 * dist.get_world_size() + case).fill(full_values(case))
        save_checkpoint(directory / str(case), engine, iteration=1, run_state=RUN_STATE)


def load_cases(rank: int, directories: list[Path]) -> list[bool]:
    results = []
    for directory in directories:
        for case in range(CASES):
            engine = engine_of(rank, seed=1000 * dist.get_world_size() + case)
            loaded = load_checkpoint(directory / str(case), engine)
            assert loaded is not None
            assert loaded.run_state == RUN_STATE
            results.append(engine.holds(full_values(case)))
    return results


def save_and_load_cases(rank: int, mine: Path, all_of_them: list[Path]) -> list[bool]:
    save_cases(rank, mine)
    return load_cases(rank, all_of_them)


def test_what_one_world_saves_every_other_world_loads_to_the_bit(tmp_path: Path) -> None:
    by_two, by_four, by_one = (tmp_path / name for name in ("two", "four", "one"))
    for case in range(CASES):
        save_checkpoint(
            by_one / str(case), fake_engine(seed=case).fill(full_values(case)), iteration=1, run_state=RUN_STATE
        )
    two = run_world(2, save_and_load_cases, by_two, [by_one, by_two])
    four = run_world(4, save_and_load_cases, by_four, [by_one, by_two, by_four])
    again = run_world(2, load_cases, [by_four])
    assert all(all(results) for results in [*two, *four, *again])
    for directory in (by_two, by_four):
        for case in range(CASES):
            engine = fake_engine(seed=777 + case)
            load_checkpoint(directory / str(case), engine, verification="full")
            assert engine.holds(full_values(case))


def save_replicated(rank: int, directory: Path) -> None:
    tensors = {f"{index}.norm/weight": FullTensor((50_000,), (Piece((0,), torch.ones(50_000)),)) for index in range(4)}
    save_checkpoint(directory, FakeEngine(tensors, world=world(rank)), iteration=1, run_state={})


def test_what_several_ranks_hold_is_written_once_and_shared_among_them(tmp_path: Path) -> None:
    run_world(2, save_replicated, tmp_path)
    sizes = [path.stat().st_size for path in (tmp_path / "global_step1").glob("*.distcp")]
    assert len(sizes) == 2
    assert all(400_000 <= size < 420_000 for size in sizes)  # four tensors of 200 kB in all, two on each rank


def failing_cases(rank: int, directory: Path) -> dict[str, str]:
    """The message of each failure on this rank; rank 1 alone is what fails."""

    def full_disk(self: hashing_writer.HashedFile, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def elsewhere(temporary: Path) -> None:
        real_check(temporary / "of-another-host")

    engine = engine_of(rank, seed=1)
    messages = {}
    save_checkpoint(directory, engine.fill(full_values(5)), iteration=1, run_state=RUN_STATE)
    real_write, real_check = hashing_writer.HashedFile.write, save._check_visible
    if rank == 1:
        hashing_writer.HashedFile.write = full_disk  # type: ignore[method-assign, assignment]
    messages["disk"] = error_of(lambda: save_checkpoint(directory, engine, iteration=2, run_state={}))
    if rank == 1:
        hashing_writer.HashedFile.write = real_write  # type: ignore[method-assign]
        save._check_visible = elsewhere
    messages["visible"] = error_of(lambda: save_checkpoint(directory, engine, iteration=2, run_state={}))
    save._check_visible = real_check
    dist.barrier()
    messages["left"] = " ".join(sorted(path.name for path in directory.iterdir()))
    messages["mismatch"] = error_of(lambda: load_checkpoint(directory, model_of_two_stages(rank)))
    messages["missing"] = error_of(lambda: load_checkpoint(directory / "absent", engine))
    messages["fresh"] = error_of(lambda: load_checkpoint(directory / "absent", engine, if_exists=True))
    target = engine_of(rank, seed=2)
    load_checkpoint(directory, target)
    assert target.holds(full_values(5))
    return messages


def model_of_two_stages(rank: int) -> FakeEngine:
    """Each rank knows only its own layer, as pipeline stages do."""
    tensors = {f"{rank}.other/weight": FullTensor((2,), (Piece((0,), torch.zeros(2)),))}
    return FakeEngine(tensors, world=world(rank))


def test_a_failure_of_one_rank_is_the_same_sentence_on_all(tmp_path: Path) -> None:
    first, second = run_world(2, failing_cases, tmp_path)
    assert first == second
    assert first["disk"].startswith(
        f"saving {tmp_path / 'global_step2'} failed: rank 1: [Errno 28] No space left on device"
    )
    assert "rank 1: " in first["visible"]
    assert "all nodes must share the file system" in first["visible"]
    assert first["left"] == "global_step1 latest"
    assert "2 parameters of the model are not in it: 0.other, 1.other." in first["mismatch"]
    assert "4 parameters in it are not in the model" in first["mismatch"]
    assert "the directory does not exist" in first["missing"]
    assert first["fresh"] == "no error"


def damaged_cases(rank: int, directory: Path) -> int:
    engine = engine_of(rank, seed=1)
    for iteration in (1, 2):
        save_checkpoint(directory, engine.fill(full_values(iteration)), iteration=iteration, run_state=RUN_STATE)
    if rank == 0:
        path = directory / "global_step2" / "__1_0.distcp"
        path.write_bytes(b"\x17" * path.stat().st_size)
    target = engine_of(rank, seed=1)  # the same cut: only rank 1 reads the damaged file
    loaded = load_checkpoint(directory, target)
    assert loaded is not None
    assert target.holds(full_values(loaded.iteration))
    prune_checkpoints(directory, keep_last=1, group=engine.groups.world)
    return loaded.iteration


def test_a_file_that_one_rank_cannot_read_sends_all_ranks_to_the_checkpoint_before(tmp_path: Path) -> None:
    assert run_world(2, damaged_cases, tmp_path) == [1, 1]


def die_while_saving(rank: int, directory: Path, victim: int, where: str) -> None:
    engine = engine_of(rank, seed=1)
    save_checkpoint(directory, engine.fill(full_values(1)), iteration=1, run_state=RUN_STATE)
    if rank == victim:
        module, name = {"tensors": (hashing_writer.HashedFile, "write"), "manifest": (save, "write_manifest")}[where]
        setattr(module, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    message = error_of(lambda: save_checkpoint(directory, engine.fill(full_values(2)), iteration=2, run_state={}))
    (directory / f"message{rank}.json").write_text(json.dumps(message))


@pytest.mark.parametrize(("victim", "where"), [(1, "tensors"), (0, "tensors"), (0, "manifest")])
def test_a_rank_that_is_killed_while_saving_leaves_the_previous_checkpoint(
    tmp_path: Path, victim: int, where: str
) -> None:
    with pytest.raises(AssertionError, match=f"rank {victim} died without an answer"):
        run_world(2, die_while_saving, tmp_path, victim, where)
    message = json.loads((tmp_path / f"message{1 - victim}.json").read_text())
    assert message.startswith(f"saving {tmp_path / 'global_step2'} failed: another rank has died or does not answer")
    engine = fake_engine(seed=3)
    loaded = load_checkpoint(tmp_path, engine)
    assert loaded is not None
    assert loaded.iteration == 1
    assert engine.holds(full_values(1))
    save_checkpoint(tmp_path, engine, iteration=2, run_state={})
    assert not list(tmp_path.glob(".*"))
    check_files(tmp_path / "global_step2", "full")
