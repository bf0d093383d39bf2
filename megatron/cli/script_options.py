"""Options of the scripts that `deepy.py` runs: each equals `key=value`. Which there are depends on the script."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


def as_text(value: str) -> str:
    """A word of the command line as YAML text, whatever characters it has."""
    return json.dumps(value, ensure_ascii=False)


def as_list(values: Sequence[str]) -> str:
    """Words, which may themselves be lists with commas, as a YAML list of texts."""
    return json.dumps([item for value in values for item in value.split(",") if item], ensure_ascii=False)


@dataclass(frozen=True)
class KeyOption:
    """An option of a script. write: turns its value into YAML; takes: how many words it has (nargs of argparse), 0 of a switch."""

    key: str
    flags: tuple[str, ...]
    write: Callable[..., str] = str
    takes: str | int | None = None

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Add it to the command line."""
        if self.takes == 0:
            group.add_argument(*self.flags, dest=self.key, action="store_const", const="true", help=f"{self.key}=true")
        else:
            metavar = self.key.rpartition("_")[2].upper()
            help_text = f"the same as {self.key}=..."
            group.add_argument(*self.flags, dest=self.key, nargs=self.takes, metavar=metavar, help=help_text)


ITERATION = KeyOption("iteration", ("--iteration",))

SCRIPT_OPTIONS: dict[str, tuple[KeyOption, ...]] = {
    "train.py": (ITERATION,),
    "generate.py": (
        KeyOption("sample_input_file", ("-i", "--sample_input_file"), as_text),
        KeyOption("sample_output_file", ("-o", "--sample_output_file"), as_text),
        ITERATION,
    ),
    "eval.py": (
        KeyOption("eval_tasks", ("--eval_tasks",), as_list, "+"),
        KeyOption("eval_include_path", ("--include_path", "--eval_include_path"), as_text),
        KeyOption("eval_num_fewshot", ("--num_fewshot", "--eval_num_fewshot")),
        KeyOption("eval_limit", ("--limit", "--eval_limit")),
        KeyOption("eval_batch_size", ("--eval_batch_size",)),
        KeyOption("eval_results_prefix", ("--eval_results_prefix",), as_text),
        KeyOption("eval_log_samples", ("--log_samples", "--eval_log_samples"), takes=0),
        ITERATION,
    ),
}
"""By the name of the script; others have none."""


def options_of(argv: Sequence[str]) -> tuple[str, tuple[KeyOption, ...]]:
    """The script that a command line names, and its options; an empty name and none when it names none of the table."""
    name = next((Path(word).name for word in argv if Path(word).name in SCRIPT_OPTIONS), "")
    return name, SCRIPT_OPTIONS.get(name, ())
