"""Where prompts come from: nowhere (unconditional), a file, or a person at the keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from megatron.errors import DataError


def prompts_of_file(path: str) -> list[str]:
    """One prompt a line, in file order; empty lines are skipped.

    Raises DataError when the file is missing, is no text, or holds no prompt.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(
            f'"sample_input_file" is "{path}": there is no such file; give a text file with one prompt a line'
        )
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f'"sample_input_file" is "{path}": byte {error.start} is not UTF-8; save the file as UTF-8 text'
        ) from error
    prompts = [line for line in text.split("\n") if line.strip()]
    if not prompts:
        raise DataError(f'"sample_input_file" is "{path}": the file holds no prompt; write one prompt a line')
    return prompts


def prompts_of_person(read_line: Callable[[], str], *, prompt_end: str) -> Iterator[str]:
    """Prompts typed by a person, each ended by `prompt_end` (at the end of a line), until the end of input.

    `read_line` returns the next line with its line break, or an empty string at the end of input.
    """
    typed = ""
    while line := read_line():
        typed += line
        if typed.endswith((prompt_end, prompt_end + "\n")):
            yield typed.removesuffix("\n").removesuffix(prompt_end)
            typed = ""
    if typed.strip():
        yield typed
