"""One run at a time saves into a directory."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron.checkpointing.files import host_name
from megatron.checkpointing.layout import describe_directory, is_empty, list_checkpoints
from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.saving import lock
from megatron.checkpointing.saving.save import check_can_save, save_checkpoint
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from tests.unit.checkpointing.fakes import fake_engine

ANOTHER_RUN = """
import sys, time
from pathlib import Path
from megatron.checkpointing.saving.lock import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def another_run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", ANOTHER_RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def in_a_fork(action: Callable[[], object]) -> str:
    """What a forked process says of `action`: "done", or its CheckpointError."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            action()
            os.write(writer, b"done")
        except CheckpointError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    os.close(writer)
    with os.fdopen(reader) as said:
        return said.read()


def test_a_second_run_is_told_who_saves_there_and_gets_in_as_soon_as_that_one_is_killed(
    tmp_path: Path, another_run: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(CheckpointError) as caught:
        check_can_save(tmp_path, group=SINGLE)
    sentence = str(caught.value)
    assert sentence.startswith(
        f"another run saves into {tmp_path} now: process {another_run.pid} on host {host_name()}, since 20"
    )
    assert sentence.endswith('Stop it, or give this run a "save" of its own')
    monkeypatch.undo()
    another_run.send_signal(signal.SIGKILL)  # not waited for: it may still be there when the next run starts
    started = time.monotonic()
    check_can_save(tmp_path, group=SINGLE)
    assert time.monotonic() - started < lock.PATIENCE_SECONDS
    assert f'"pid": {os.getpid()}' in (tmp_path / ".lock").read_text()


def test_the_same_process_may_ask_again_and_keeps_others_out(tmp_path: Path) -> None:
    for _ in range(3):
        check_can_save(tmp_path, group=SINGLE)
    save_checkpoint(tmp_path, fake_engine(), iteration=1, run_state={})
    list_checkpoints(tmp_path)
    load_checkpoint(tmp_path, fake_engine())
    assert "another run saves into" in in_a_fork(lambda: lock.hold(tmp_path, patience_seconds=0.0))
    assert "another run saves into" in in_a_fork(lambda: lock.hold(tmp_path, patience_seconds=0.0))


def test_a_forked_process_neither_has_the_lock_nor_takes_it_from_its_parent(tmp_path: Path) -> None:
    lock.hold(tmp_path)

    def close_everything() -> None:
        os.closerange(3, 64)

    in_a_fork(close_everything)
    assert "another run saves into" in in_a_fork(lambda: lock.hold(tmp_path, patience_seconds=0.0))


def test_reading_needs_no_lock_and_does_not_see_it(tmp_path: Path, another_run: subprocess.Popen[str]) -> None:
    assert is_empty(tmp_path)
    assert describe_directory(tmp_path) == "the directory is empty"
    assert load_checkpoint(tmp_path, fake_engine(), if_exists=True) is None
    save_checkpoint(tmp_path, fake_engine(), iteration=1, run_state={})
    assert load_checkpoint(tmp_path, fake_engine()) is not None


def test_a_lock_file_that_was_removed_and_one_full_of_garbage_are_no_trouble(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("garbage " * 100)
    lock.hold(tmp_path)
    (tmp_path / ".lock").unlink()
    lock.hold(tmp_path)
    assert "another run saves into" in in_a_fork(lambda: lock.hold(tmp_path, patience_seconds=0.0))
    (tmp_path / ".lock").write_text("garbage")  # this process closes the file, and so gives the lock away
    assert in_a_fork(lambda: lock.hold(tmp_path, patience_seconds=0.0)) == "done"


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with caplog.at_level(logging.WARNING):
        check_can_save(tmp_path, group=SINGLE)
        check_can_save(tmp_path, group=SINGLE)
    assert len(caplog.messages) == 1
    assert "file system without locks" in caplog.messages[0]
