"""The lock around building: it saves work, and nothing waits for what cannot come."""

from __future__ import annotations

import errno
import fcntl
import threading
import time

import pytest

from megatron.data.maps import build_lock as build_lock_module
from megatron.data.maps.build_lock import build_lock


def test_the_second_waits_for_the_first_and_nothing_is_left(tmp_path):
    path = tmp_path / "deep" / "a.lock"
    order = []

    def second():
        with build_lock(path):
            order.append("second")

    with build_lock(path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert not path.exists()


def test_a_file_of_a_killed_process_is_no_lock(tmp_path):
    path = tmp_path / "a.lock"
    path.touch()
    started = time.monotonic()
    with build_lock(path):
        pass
    assert time.monotonic() - started < 5
    assert not path.exists()


def test_nobody_waits_for_ever(tmp_path, monkeypatch, caplog):
    path = tmp_path / "a.lock"
    monkeypatch.setattr(build_lock_module, "LONGEST_WAIT", 0.2)
    with build_lock(path), build_lock(path):
        assert "building it here as well" in caplog.text


def test_where_there_are_no_locks_there_is_no_waiting(tmp_path, monkeypatch):
    def unsupported(file, operation):
        raise OSError(errno.ENOTSUP, "no locks")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with build_lock(tmp_path / "a.lock"), build_lock(tmp_path / "a.lock"):
        pass


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), build_lock(tmp_path / "file" / "a.lock"):
        pass
