"""Lines at a terminal: edited, remembered, dropped by Ctrl-C; and the terminal is left as it was."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from megatron.generation.keyboard import Keyboard
from tests.conftest import REPOSITORY
from tests.terminal import BACKSPACE, CTRL_D, UP, Terminal, at_terminal

ASK = """
import sys
from megatron.generation.keyboard import Keyboard
keyboard = Keyboard(prompt_end=sys.argv[1])
while True:
    prompt = keyboard.prompt()
    print("heard", ascii(prompt))
    if prompt is None:
        break
"""


def asked(home: Path, *, prompt_end: str = "\n") -> AbstractContextManager[Terminal]:
    """A program that asks, in a home directory of its own."""
    home.mkdir(exist_ok=True)
    (home / ".inputrc").write_text("TAB: menu-complete\n")  # which is many people's wish for their shell
    environment = {**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8"}
    for name in ("XDG_STATE_HOME", "INPUTRC"):
        environment.pop(name, None)
    return at_terminal([sys.executable, "-c", ASK, prompt_end], environment=environment, directory=REPOSITORY)


def test_lines_are_edited_and_come_back_in_the_next_conversation(tmp_path: Path) -> None:
    with asked(tmp_path / "home") as terminal:
        terminal.await_text("> ")
        terminal.type("def\tg" + BACKSPACE + "f\r")
        terminal.await_text("heard 'def\\tf'")
        terminal.await_text("> ")
        terminal.type(UP + "(é)\r")
        terminal.await_text("heard 'def\\tf(\\xe9)'")
        terminal.await_text("> ")
        terminal.type(CTRL_D)
        terminal.await_text("heard None")
    history = tmp_path / "home" / ".local" / "state" / "neox" / "prompts"
    assert history.read_text() == "def\tf\ndef\tf(é)\n"
    assert history.stat().st_mode & 0o777 == 0o600
    with asked(tmp_path / "home") as terminal:
        terminal.await_text("> ")
        terminal.type(UP + UP + "\r")
        terminal.await_text("heard 'def\\tf'")


def test_where_no_history_can_be_kept_everything_else_works(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with at_terminal(
        [sys.executable, "-c", ASK, "\n"],
        environment={**os.environ, "XDG_STATE_HOME": str(tmp_path / "home")},
        directory=REPOSITORY,
    ) as terminal:
        terminal.await_text("> ")
        terminal.type("one\r")
        terminal.await_text("heard 'one'")
        terminal.await_text("> ")
        terminal.type(UP + "\r")
        terminal.await_text("heard 'one'")


def test_ctrl_c_drops_what_is_typed_and_leaves_where_nothing_is(tmp_path: Path) -> None:
    with asked(tmp_path / "home", prompt_end="<end>") as terminal:
        before = terminal.settings
        terminal.await_text("> ")
        terminal.type("first line\r")
        terminal.await_text("| ")
        terminal.send(signal.SIGINT)
        terminal.await_text("> ")
        terminal.type("half a line")
        terminal.await_text("half a line")
        terminal.send(signal.SIGINT)
        terminal.await_text("> ")
        terminal.type("def f():\r")
        terminal.await_text("| ")
        terminal.type("  pass<end>\r")
        terminal.await_text("heard 'def f():\\n  pass'")
        terminal.await_text("> ")
        terminal.send(signal.SIGINT)
        terminal.await_text("heard None")
        assert terminal.process.wait(timeout=20) == 0
        assert terminal.settings == before


def test_bytes_that_are_no_text_end_nothing(tmp_path: Path) -> None:
    with asked(tmp_path / "home") as terminal:
        terminal.await_text("> ")
        terminal.type("\udcff\r")  # one byte, 0xff
        terminal.await_text("heard '\\udcff'")
        terminal.await_text("> ")
        terminal.type("text\r")
        terminal.await_text("heard 'text'")


@pytest.mark.parametrize(("piped", "heard"), [(b"a\n\xff\nb\n", ["a", "\udcff", "b", None]), (None, [None])])
def test_without_a_terminal_lines_come_as_they_are_piped(
    piped: bytes | None, heard: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = None if piped is None else io.TextIOWrapper(io.BytesIO(piped), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)  # None is what a closed standard input becomes
    keyboard = Keyboard(prompt_end="\n")
    assert [keyboard.prompt() for _ in heard] == heard


def test_who_is_ended_while_asking_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    with asked(tmp_path / "home") as terminal:
        before = terminal.settings
        terminal.await_text("> ")
        terminal.type("half")
        terminal.await_text("half")
        assert terminal.settings != before
        terminal.send(signal.SIGTERM)
        assert terminal.process.wait(timeout=20) == -signal.SIGTERM
        assert terminal.settings == before
