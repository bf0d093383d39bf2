"""The desk and surveyors, each in a thread here, over real connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from megatron.doctor.children import surveyor
from megatron.doctor.children.surveyor import Surveyor, reach, read
from megatron.doctor.nodes.desk import Desk
from megatron.doctor.nodes.link import DESK_VARIABLE, TOKEN_VARIABLE, Link
from megatron.doctor.nodes.marks import marks_in
from megatron.errors import LaunchError


def closed_port() -> int:
    """One that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def meeting_place() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def join(desk: Desk, rank: int) -> threading.Thread:
    """A surveyor of this process."""

    def work() -> None:
        variables = desk.environment(["127.0.0.1"])
        port = int(variables[DESK_VARIABLE].rpartition(":")[2])
        link = Link(socket.create_connection(("127.0.0.1", port)))
        link.say({"token": variables[TOKEN_VARIABLE], "rank": rank})
        mine = Surveyor()
        try:
            while (question := link.hear())["question"] != "leave":
                link.say(mine.answer(question))
        except OSError:
            pass
        link.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_surveyors_tell_all_there_is_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"save": str(tmp_path / "run" / "checkpoints")}
    with meeting_place() as port, marks_in(folders) as marks:
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        with Desk(["127.0.0.1", "localhost"], folders, marks) as desk:
            surveyors = [join(desk, rank) for rank in (1, 0)]
            for each in surveyors:
                each.join(timeout=30)
    assert desk.problems == {}
    assert list(tmp_path.iterdir()) == [], "the mark is gone"
    facts = desk.facts["localhost"]
    assert facts.machine.host == socket.gethostname()
    assert abs(facts.skew) <= facts.round_trip < 1
    assert facts.folders["save"].problem == ""
    assert facts.shared == {"save": ""}
    assert (facts.meeting_port, facts.meeting_place) == (port, "")
    assert facts.peers == {"127.0.0.1": ""}


def test_a_file_with_other_content_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "mark").write_text("theirs")
    with Desk(["a"], {"save": str(tmp_path)}, {"save": (str(tmp_path / "mark"), "ours")}) as desk:
        join(desk, 0).join(timeout=30)
    assert desk.facts["a"].shared == {"save": "another file has its name there"}


def test_whoever_does_not_know_the_token_is_sent_away() -> None:
    with Desk(["a"], {}, {}) as desk:
        address, _, port = desk.environment(["127.0.0.1"])[DESK_VARIABLE].rpartition(":")
        link = Link(socket.create_connection((address, int(port))))
        link.say({"token": "guessed", "rank": 0})
        with pytest.raises(OSError, match=r"hung up|reset"):
            link.hear()
        link.close()
    assert desk.facts == {}


def test_a_job_that_ends_early_leaves_no_facts() -> None:
    with Desk(["a", "b"], {}, {}) as desk:
        thread = join(desk, 0)
    thread.join(timeout=30)
    assert desk.facts == {}


def test_a_surveyor_that_never_answers_does_not_outlast_its_job() -> None:
    with Desk(["a"], {}, {}) as desk:
        address, _, port = desk.environment(["127.0.0.1"])[DESK_VARIABLE].rpartition(":")
        link = Link(socket.create_connection((address, int(port))))
        link.say({"token": desk.environment([])[TOKEN_VARIABLE], "rank": 0})
        assert link.hear()["question"] == "time"
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    assert desk.facts == {}
    link.close()


def test_a_closed_port_is_told_with_its_reason() -> None:
    assert "refused" in reach("127.0.0.1", closed_port()).lower()


def test_a_folder_that_is_another_one_there_is_told(tmp_path: Path) -> None:
    assert read(str(tmp_path / "mark"))["problem"] == "No such file or directory"
    with marks_in({"save": str(tmp_path)}) as marks:
        path, content = marks["save"]
        assert read(path) == {"content": content, "problem": ""}


def test_a_folder_that_cannot_be_written_gets_no_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    with marks_in({"save": str(tmp_path)}) as marks:
        assert marks == {}


def test_a_desk_that_cannot_be_reached_is_an_error_with_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DESK_VARIABLE, f"127.0.0.1,localhost:{closed_port()}")
    with pytest.raises(
        LaunchError, match=r"cannot reach the machine of deepy\.py: tried 127\.0\.0\.1:\d+ .*, localhost:"
    ):
        surveyor.main()


def test_a_surveyor_whose_desk_has_closed_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that took too long is told as such: its process must not fail the job of the others."""
    with Desk(["a", "b"], {}, {}) as desk:
        for name, value in {**desk.environment(["127.0.0.1"]), "RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        thread = threading.Thread(target=surveyor.main)
        thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
