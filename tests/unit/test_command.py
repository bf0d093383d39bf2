"""How commands end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron.command import run_command, say
from megatron.errors import NeoXError


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """What a test of this process's does to its signals is undone."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def code_of(main: Callable[[], None]) -> object:
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    return ended.value.code


def refuse() -> None:
    raise NeoXError("this is wrong")


def open_in_a_file() -> None:
    Path(__file__, "x").read_text()


def open_what_is_named_at_length() -> None:
    Path("y" * 300).touch()


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("main", "code", "told"),
    [
        (lambda: None, 0, ""),
        (refuse, 1, "this is wrong\n"),
        (open_in_a_file, 1, f"{__file__}/x cannot be read or written: Not a directory.\n"),
        (open_what_is_named_at_length, 1, f"{'y' * 300} cannot be read or written: File name too long.\n"),
        (interrupt, 130, "interrupted: nothing was left half written\n"),
    ],
)
def test_each_end_has_its_code_and_at_most_a_sentence(
    main: Callable[[], None], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(main) == code
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize("write", [lambda: say("line"), lambda: print("line")])
def test_a_reader_that_has_gone_is_no_mistake(write: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))
    assert code_of(write) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
@pytest.mark.parametrize("write", [lambda: say("line"), lambda: print("line")])
def test_a_full_disk_is_told(
    write: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"))
    assert code_of(write) == 1
    assert capsys.readouterr().err.startswith("the output cannot be written (No space left on device)")
