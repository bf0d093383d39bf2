"""Prompts arrive as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.errors import DataError
from megatron.generation.keyboard import prompts_of_person
from megatron.generation.prompts import prompts_of_file


def typed(text: str, prompt_end: str) -> list[str]:
    lines = iter(text.splitlines(keepends=True))
    return list(prompts_of_person(lambda: next(lines, ""), prompt_end=prompt_end))


def test_a_file_gives_one_prompt_a_line_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("def f(\n \n  import os\n")
    assert prompts_of_file(str(file)) == {1: "def f(", 3: "  import os"}


def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbfone\n")
    assert prompts_of_file(str(file)) == {1: "one"}


def test_only_line_ends_end_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("one\x0ctwo\u2028three\r\nfo\rur".encode())
    assert prompts_of_file(str(file)) == {1: "one\x0ctwo\u2028three", 2: "fo\rur"}


def test_a_file_that_is_no_text_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "prompts.bin").write_bytes(b"ok\n\xff")
    with pytest.raises(DataError, match=r"prompts\.bin.: byte 3 is not UTF-8"):
        prompts_of_file(str(tmp_path / "prompts.bin"))


def test_a_missing_or_empty_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    for absent in (tmp_path / "absent.txt", tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match="no such file"):
            prompts_of_file(str(absent))
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match="holds no prompt"):
        prompts_of_file(str(tmp_path / "empty.txt"))


def test_a_line_break_ends_a_typed_prompt() -> None:
    assert typed("one\ntwo\n", "\n") == ["one", "two"]


def test_a_longer_prompt_end_lets_a_prompt_span_lines() -> None:
    assert typed("def f():\n    return 1<end>\nclass A:\n<end>\n", "<end>") == ["def f():\n    return 1", "class A:\n"]


def test_what_is_typed_before_the_end_of_input_counts() -> None:
    assert typed("one\ntwo", "\n") == ["one", "two"]
