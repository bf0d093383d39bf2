"""Which rank says what."""

from __future__ import annotations

import logging

import pytest

from megatron.log import configure_logging, get_logger


@pytest.fixture(autouse=True)
def _restore_logging():
    root, ours = logging.getLogger(), logging.getLogger("megatron")
    before = (list(root.handlers), root.level, ours.level)
    yield
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])
    logging.getLogger("DeepSpeed").filters.clear()
    logging.captureWarnings(False)


def lines_of_rank(rank: int, capsys) -> list[str]:
    configure_logging(rank)
    get_logger("megatron.training.loop").info("started")
    get_logger("megatron.training.loop").warning("odd")
    get_logger("library").info("chatter")
    get_logger("library").warning("library warning")
    get_logger("library").error("library error")
    return capsys.readouterr().err.splitlines()


def test_rank_0_tells_everything_of_ours_and_the_warnings_of_libraries(capsys):
    assert lines_of_rank(0, capsys) == [
        "started",
        "warning: odd",
        "warning: library: library warning",
        "error: library: library error",
    ]


def test_other_ranks_tell_only_what_is_wrong_and_who_they_are(capsys):
    assert lines_of_rank(3, capsys) == ["[rank 3] warning: odd", "[rank 3] error: library: library error"]


def test_a_library_that_sets_its_own_level_and_handler_later_stays_quiet(capsys):
    configure_logging(0)
    deepspeed = logging.getLogger("DeepSpeed")
    handler = logging.StreamHandler()
    deepspeed.addHandler(handler)
    deepspeed.setLevel(logging.INFO)
    try:
        deepspeed.info("chatter")
        assert capsys.readouterr().err == ""
    finally:
        deepspeed.removeHandler(handler)


def test_configuring_twice_does_not_double_the_messages(capsys):
    configure_logging(0)
    assert lines_of_rank(0, capsys).count("started") == 1
