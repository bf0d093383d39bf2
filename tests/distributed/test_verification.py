"""A checkpoint is verified by all ranks together: each file once, and what one rank finds, all of them know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from megatron.checkpointing import manifest
from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.manifest import read_manifest
from megatron.checkpointing.saving.retention import prune_checkpoints
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.errors import CheckpointError
from megatron.mpu.groups import Group
from tests.unit.checkpointing.fakes import FakeEngine, fake_engine, full_values
from tests.worlds import run_world

SIZE = 4


def engine_of(rank: int) -> FakeEngine:
    return fake_engine(seed=5, rank=rank, world=Group(rank, SIZE, tuple(range(SIZE)), dist.group.WORLD))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def verification_cases(rank: int, directory: Path) -> dict[str, Any]:
    engine, found = engine_of(rank), {}
    for iteration in (1, 2):
        save_checkpoint(directory, engine.fill(full_values(iteration)), iteration=iteration, run_state={})
    hashed: list[str] = []
    hash_file = manifest.sha256_of_file
    manifest.sha256_of_file = lambda path: hashed.append(path.name) or hash_file(path)
    load_checkpoint(directory, engine, verification="full")
    found["hashed"] = list(hashed)
    if rank == 0:
        for name in ("__1_0.distcp", "__3_0.distcp"):
            flip_a_byte(directory / "global_step2" / name)
    dist.barrier()
    loaded = load_checkpoint(directory, engine, verification="full")
    assert loaded is not None
    found["fallen back to"] = (loaded.iteration, engine.holds(full_values(1)))
    try:
        load_checkpoint(directory, engine, iteration=2, verification="full")
    except CheckpointError as error:
        found["error"] = str(error)
    found["pruned"] = prune_checkpoints(directory, keep_last=1, group=engine.groups.world, verification="full")
    return found


def test_each_file_is_hashed_once_and_a_damaged_one_sends_all_ranks_to_the_checkpoint_before(tmp_path: Path) -> None:
    of_ranks = run_world(SIZE, verification_cases, tmp_path)
    hashed = [name for found in of_ranks for name in found["hashed"]]
    assert sorted(hashed) == sorted(name for name, _ in read_manifest(tmp_path / "global_step2"))
    assert sum("distcp" in " ".join(found["hashed"]) for found in of_ranks) == SIZE
    damaged = [tmp_path / "global_step2" / name for name in ("__1_0.distcp", "__3_0.distcp")]
    sentence = "; ".join(f"{path} has changed since it was written (its SHA-256 differs)" for path in damaged)
    for found in of_ranks:
        assert found["fallen back to"] == (1, True)
        assert found["error"] == f"no checkpoint in {tmp_path} can be loaded: {sentence}"
        assert found["pruned"] == []
    assert (tmp_path / "global_step1").exists()
