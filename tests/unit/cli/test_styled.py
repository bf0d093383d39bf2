from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from megatron.cli.styled import plain, show_lines
from megatron.errors import NeoXError

LINES = [[("a", "bold"), ("  b   ", "red")], plain("x" * 300)]


def test_pipes_and_files_get_plain_text_in_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show_lines(LINES)
    assert capsys.readouterr().out == f"a  b\n{'x' * 300}\n"


def test_terminals_get_colours_and_whole_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_lines(LINES)
    out = capsys.readouterr().out
    assert "\x1b[1ma\x1b[0m" in out
    assert "x" * 300 in out


def replaced(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> None:
    monkeypatch.setattr(sys, "stdout", os.fdopen(descriptor, "w"))


def test_a_reader_that_has_gone_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    replaced(monkeypatch, writer)
    show_lines(LINES)
    show_lines(LINES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_disk_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(NeoXError, match="the output cannot be written"):
        show_lines(LINES)
