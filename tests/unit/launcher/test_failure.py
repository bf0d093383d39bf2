"""Which failure is the cause, and how it is told."""

from __future__ import annotations

import json

from megatron.errors import DataError
from megatron.launcher.failure import (
    ErrorRecord,
    Failure,
    describe_failure,
    first_cause,
    read_error_record,
    write_error_record,
)


def record(time: float, text: str = "text", *, expected: bool = False) -> ErrorRecord:
    return ErrorRecord(text, expected, time)


def test_the_earliest_record_is_the_cause():
    first = Failure(3, 1, record(10.0))
    assert first_cause([Failure(0, 1, record(10.5)), first, Failure(1, 1, record(11.0))]) is first


def test_a_killed_rank_is_the_cause_of_the_broken_connections_of_the_others():
    killed = Failure(2, -9)
    assert first_cause([Failure(0, 1, record(1.0)), killed]) is killed
    forced = Failure(1, 7)
    assert first_cause([Failure(0, 1, record(1.0)), forced]) is forced


def test_a_rank_that_the_watchdog_of_nccl_aborted_is_a_consequence():
    raised = Failure(0, 1, record(1.0))
    assert first_cause([Failure(1, -6), raised]) is raised


def test_a_rank_that_was_ended_beside_one_that_failed_is_a_consequence():
    raised = Failure(0, 1, record(1.0))
    assert first_cause([Failure(1, -15), raised]) is raised


def test_an_error_of_ours_is_one_sentence_named_by_rank():
    failure = Failure(3, 1, record(0, "the file is missing: make it", expected=True))
    assert describe_failure(failure, world_size=4) == "error (rank 3): the file is missing: make it"
    assert describe_failure(Failure(0, 1, failure.record), world_size=1) == "error: the file is missing: make it"


def test_a_traceback_begins_on_a_line_of_its_own():
    assert (
        describe_failure(Failure(1, 1, record(0, "Traceback\nX: y")), world_size=2)
        == "error (rank 1):\nTraceback\nX: y"
    )


def test_signals_and_bare_exit_codes_are_named():
    assert describe_failure(Failure(1, -9), world_size=2).startswith("error: rank 1 was killed by signal 9 (SIGKILL)")
    assert describe_failure(Failure(1, -11), world_size=2) == "error: rank 1 was killed by signal 11 (SIGSEGV)"
    assert describe_failure(Failure(0, 3), world_size=1) == "error: rank 0 exited with code 3"


def test_the_launcher_exits_like_the_rank():
    assert Failure(0, 3).exit_status == 3
    assert Failure(0, -9).exit_status == 137


def test_a_record_survives_the_file(tmp_path):
    path = tmp_path / "error.json"
    write_error_record(path, DataError("no data"))
    found = read_error_record(path)
    assert found is not None
    assert (found.text, found.expected) == ("no data", True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["error.json"]


def test_the_file_is_in_the_format_of_torchs_elastic_agent(tmp_path):
    path = tmp_path / "error.json"
    try:
        raise ValueError("odd")
    except ValueError as error:
        write_error_record(path, error)
    message = json.loads(path.read_text())["message"]
    assert message["message"] == "ValueError: odd"
    assert message["extraInfo"]["py_callstack"].startswith("Traceback")
    int(message["extraInfo"]["timestamp"])


def test_a_missing_or_broken_record_is_none(tmp_path):
    (tmp_path / "broken").write_text('{"message": {')
    assert read_error_record(tmp_path / "broken") is None
    assert read_error_record(tmp_path / "none") is None
