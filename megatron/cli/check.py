"""`deepy.py check CONFIG...`: what becomes of every key of existing config files, and whether they would run together."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from megatron.atomic import atomic_file
from megatron.cli.check_report import default_lines, judge_together, totals, verdict_lines
from megatron.cli.command_line import CommandLine
from megatron.cli.styled import plain, show_lines
from megatron.errors import ConfigError
from megatron.neox_arguments.explaining.judge import HARMLESS, Kind, Verdict, judge
from megatron.neox_arguments.explaining.rewrite import rewrite
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls, split_arguments
from megatron.neox_arguments.reading.values import ConfigValues

UNUSABLE: tuple[Kind, ...] = ("unsupported", "unknown", "wrong")


def main(argv: Sequence[str]) -> int:
    """Returns 0 when everything would run, else 1. Raises ConfigError for files that cannot be read or written."""
    options = parse_check_args(argv)
    files, assignments = split_arguments(options.words)
    merged = apply_overrides(read_ymls(files, directory=options.conf_dir), assignments)
    parts = [
        *(read_ymls([name], directory=options.conf_dir) for name in files),
        apply_overrides(ConfigValues(), assignments),
    ]
    verdicts = [verdict for part in parts for verdict in judge(part, among=merged)]
    counting = [verdict for verdict in verdicts if merged.origin(verdict.key) == verdict.origin]
    bad = top_keys(verdict for verdict in counting if verdict.kind not in HARMLESS)
    unusable = top_keys(verdict for verdict in counting if verdict.kind in UNUSABLE)
    together, fits = judge_together(merged, unusable=unusable, missing=bad - unusable)
    shown = [verdict for verdict in verdicts if verdict.kind != "same"] if options.quiet else verdicts
    show_lines([*verdict_lines(shown, counting), *default_lines(merged, verdicts), *together, *totals(verdicts)])
    if options.write:
        write(merged, Path(options.write), refuse=bool(unusable) or bool(modernise(merged)[0].problems))
        show_lines([plain(f"written: {options.write}")])
    return 0 if fits and not bad else 1


def top_keys(verdicts: Iterable[Verdict]) -> set[str]:
    """The keys, of those in sections the section, that verdicts are about."""
    return {verdict.key.partition(".")[0] for verdict in verdicts}


def parse_check_args(argv: Sequence[str]) -> argparse.Namespace:
    """The words after `check`."""
    parser = CommandLine(
        "deepy.py check",
        example="deepy.py check configs/125M.yml configs/local_setup.yml",
        description="Tell what becomes of every key of GPT-NeoX config files, old or new, and start nothing.",
    )
    parser.add_config("YAML files, whole configs or parts of one")
    parser.add_argument("-q", "--quiet", action="store_true", help="leave out keys that mean the same")
    parser.add_argument("--write", metavar="NEW.yml", help="write the merged config in today's words, tidied up")
    return parser.parse_intermixed_args(argv)


def write(merged: ConfigValues, path: Path, *, refuse: bool) -> None:
    """Write the config in today's words. Raises ConfigError when the file exists or the config has keys that mean nothing."""
    if refuse:
        raise ConfigError(
            [f'"{path}" is not written: keys that are unsupported, unknown or wrong need your decision first']
        )
    if path.exists():
        raise ConfigError([f'"{path}" exists already: give another name, or remove it'])
    if not path.parent.is_dir():
        raise ConfigError([f'"{path}" cannot be written: the directory "{path.parent}" does not exist; make it first'])
    with atomic_file(path) as file:
        file.write(rewrite(merged).encode())
