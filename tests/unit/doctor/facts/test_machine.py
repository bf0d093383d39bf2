from __future__ import annotations

import sys
from pathlib import Path

from megatron.doctor.facts.disks import look_at_folder
from megatron.doctor.facts.machine import gather_limits, gather_machine, memory_sizes
from megatron.doctor.facts.source import source_hash

GIB = 2**30


def test_this_machine_can_be_described() -> None:
    machine = gather_machine(also=["no-such-package"])
    assert machine.executable == sys.executable
    assert 1 <= machine.cores <= machine.cores_present
    assert 0 < machine.available_bytes <= machine.memory_bytes
    assert machine.packages["torch"]
    assert "no-such-package" not in machine.packages


def test_the_limit_of_a_container_cuts_its_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemAvailable: {60 * 2**20} kB\n")
    assert memory_sizes(tmp_path / "meminfo", tmp_path) == (64 * GIB, 60 * GIB)
    (tmp_path / "memory.max").write_text(f"{8 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    assert memory_sizes(tmp_path / "meminfo", tmp_path) == (8 * GIB, 5 * GIB)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_sizes(tmp_path / "meminfo", tmp_path) == (64 * GIB, 60 * GIB)


def test_a_system_that_does_not_tell_its_memory_has_none(tmp_path: Path) -> None:
    assert memory_sizes(tmp_path / "meminfo", tmp_path) == (0, 0)


def test_a_system_without_shared_memory_says_so(tmp_path: Path) -> None:
    assert gather_limits(tmp_path / "shm").shared_memory is None


def test_the_hash_of_the_source_changes_with_any_module(tmp_path: Path) -> None:
    (tmp_path / "megatron" / "room").mkdir(parents=True)
    (tmp_path / "train.py").write_text("x = 1\n")
    (tmp_path / "megatron" / "room" / "a.py").write_text("y = 1\n")
    first = source_hash(tmp_path)
    assert source_hash(tmp_path) == first
    (tmp_path / "megatron" / "room" / "a.py").rename(tmp_path / "megatron" / "room" / "b.py")
    second = source_hash(tmp_path)
    (tmp_path / "train.py").write_text("x = 2\n")
    assert len({first, second, source_hash(tmp_path)}) == 3


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    disk = look_at_folder(tmp_path / "a" / "b")
    assert (disk.exists, disk.problem) == (False, "")
    assert disk.free_bytes > 0


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert look_at_folder(tmp_path / "file" / "b").problem == f"{tmp_path / 'file'} is no folder"


def test_a_folder_that_cannot_be_looked_at_is_a_problem(tmp_path: Path) -> None:
    disk = look_at_folder(tmp_path / ("a" * 300))
    assert (disk.exists, disk.free_bytes) == (False, 0)
    assert disk.problem.endswith("cannot be looked at (File name too long)")


def test_a_tilde_is_a_name_as_it_is_to_a_run() -> None:
    assert look_at_folder("~nobody-of-this-name/checkpoints").path == str(
        Path("~nobody-of-this-name/checkpoints").absolute()
    )
