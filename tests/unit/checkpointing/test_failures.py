"""A save that cannot be finished: a sentence, no rubbish, and the previous checkpoint as it was."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from megatron.checkpointing.files import host_name, temporary_path
from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.saving import save
from megatron.checkpointing.saving.save import check_can_save, save_checkpoint
from megatron.checkpointing.saving.temporaries import clean_directory
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from tests.unit.checkpointing.fakes import fake_engine, full_values

BIG = {"a/weight": (1 << 17,)}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_system_that_takes_no_more_bytes_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    values = full_values(1, BIG)
    save_checkpoint(tmp_path, fake_engine(BIG).fill(values), iteration=1, run_state={})
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"saving .*global_step2 failed: .*File too large"):
            save_checkpoint(tmp_path, fake_engine(BIG), iteration=2, run_state={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == ["global_step1", "latest"]
    target = fake_engine(BIG, seed=1)
    load_checkpoint(tmp_path, target)
    assert target.holds(values)


def test_a_disk_that_is_full_at_the_very_end_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save_checkpoint(tmp_path, fake_engine(), iteration=1, run_state={})
    monkeypatch.setattr(save, "write_manifest", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(tmp_path, fake_engine(), iteration=2, run_state={})
    assert names(tmp_path) == ["global_step1", "latest"]


def test_whether_checkpoints_can_be_saved_is_known_beforehand(tmp_path: Path) -> None:
    check_can_save(tmp_path / "new" / "save", group=SINGLE)
    assert names(tmp_path / "new" / "save") == [".lock"]
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r'trying to write to .*file \(the key "save"\) failed: .*File exists'):
        check_can_save(tmp_path / "file", group=SINGLE)


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"saving .*file/save/global_step2 failed: .*Not a directory"):
        save_checkpoint(tmp_path / "file" / "save", fake_engine(), iteration=2, run_state={})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_a_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(CheckpointError, match="Permission denied"):
        save_checkpoint(tmp_path, fake_engine(), iteration=2, run_state={})


def test_a_run_state_that_is_no_json_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="run state cannot be written as JSON"):
        save_checkpoint(tmp_path, fake_engine(), iteration=2, run_state={"path": tmp_path})
    assert names(tmp_path) == []


def test_a_process_that_got_the_number_of_a_dead_one_does_not_keep_its_temporaries(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        old, new = (tmp_path / f".tmp-global_step9@{host_name()}@{other.pid}@{token}" for token in ("00", "01"))
        for path in (old, new):
            path.mkdir()
        os.utime(old, (time.time() - 60,) * 2)  # before that process was started
        clean_directory(tmp_path)
        other.kill()
    assert list(tmp_path.iterdir()) == [new]


def test_temporaries_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead_pid = os.fork()
    if dead_pid == 0:
        os._exit(0)
    os.waitpid(dead_pid, 0)
    name = temporary_path(tmp_path, "global_step9").name
    mine = f"@{os.getpid()}@"
    dead = tmp_path / name.replace(mine, f"@{dead_pid}@")
    living = tmp_path / name.replace(mine, f"@{os.getppid()}@")
    elsewhere = tmp_path / ".tmp-global_step9@another-host@1@00ff"
    long_idle = tmp_path / ".tmp-global_step8@another-host@1@00ff"
    for path in (dead, living, elsewhere, long_idle):
        path.mkdir()
        (path / "__0_0.distcp").write_bytes(b"x")
    for path in (long_idle / "__0_0.distcp", long_idle):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    save_checkpoint(tmp_path, fake_engine(), iteration=10, run_state={})
    assert names(tmp_path) == sorted([living.name, elsewhere.name, "global_step10", "latest"])
