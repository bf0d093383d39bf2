"""What a person sees of prompts and answers: the text as it is, neither wrapped nor changed, as soon as it comes."""

from __future__ import annotations

from rich.console import Console

from megatron.generation.rows import Completion

CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
CONTROLS |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
"""Control characters and what a terminal shows for them: a model must not be able to steer it."""


class Voice:
    """Shows prompts and answers on rank 0; the other ranks' screens are quiet. Text is printed as it is: not wrapped, tabs kept."""

    def __init__(self, screen: Console, *, on_terminal: bool) -> None:
        self._screen = screen
        self._on_terminal = on_terminal

    def begin(self, prompt: str) -> None:
        """An answer begins. On a terminal the prompt stands there already, as it was typed."""
        if not self._on_terminal:
            self.show(prompt)

    def show(self, prompt: str) -> None:
        """A prompt that nobody typed, bold on a terminal."""
        self._screen.rule()
        bold, plain = ("\x1b[1m", "\x1b[22m") if self._on_terminal and not self._screen.is_dumb_terminal else ("", "")
        self._write(bold)
        self.say(prompt)
        self._write(plain)

    def say(self, text: str) -> None:
        """More of the answer."""
        self._write(text.translate(CONTROLS) if self._on_terminal else text)

    def end(self, completion: Completion) -> None:
        """The answer is over."""
        self.say("\n")
        if completion.finish_reason == "interrupted":
            self._screen.print("(stopped)", style="dim", markup=False)

    def _write(self, text: str) -> None:
        if text and not self._screen.quiet:
            self._screen.file.write(text)
            self._screen.file.flush()
