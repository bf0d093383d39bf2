"""A reader of command lines whose refusals say what to write instead."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from megatron.registry import did_you_mean


class CommandLine(argparse.ArgumentParser):
    """As argparse's. example: a whole command line, shown when words are missing."""

    def __init__(self, prog: str, *, example: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog, description=description, epilog=epilog, allow_abbrev=False)
        self._example = example

    def add_config(self, explanation: str, *, metavar: str = "CONFIG | key=value", nargs: str = "+") -> None:
        """The words that make up a config (`words`), and the folder of its files (`conf_dir`)."""
        self.add_argument("words", metavar=metavar, nargs=nargs, help=explanation)
        self.add_argument("-d", "--conf_dir", "--conf-dir", metavar="DIR", help="folder of the config files")

    def error(self, message: str) -> NoReturn:
        """Print the usage, the mistake and the fix, and exit with code 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}{self._fix(message)}\n")

    def _fix(self, message: str) -> str:
        if message.startswith("the following arguments are required"):
            return f"; write for example {self._example}"
        if message.startswith("unrecognized arguments: "):
            return self._instead_of(message.partition(": ")[2].split()[0])
        if "expected one argument" in message:
            return "; give it a value"
        if "invalid float value" in message or "invalid int value" in message:
            return "; write digits"
        return ""

    def _instead_of(self, word: str) -> str:
        """What an unknown option was meant to be: a config key, which takes no dashes, or an option of a similar name."""
        key, equals, value = word.partition("=")
        options = [option for option in self._option_string_actions if option.startswith("--")]
        close = did_you_mean(key, options)
        if close:
            return close
        if equals:
            return f"; write {key.lstrip('-')}={value}, without dashes"
        return f"; remove it, or write {word.lstrip('-')}=VALUE if it is a key"
