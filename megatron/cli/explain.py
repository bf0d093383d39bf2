"""`deepy.py explain KEY... CONFIG...`: what keys mean, which values they have in a config, and where these come from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from megatron.cli.command_line import CommandLine
from megatron.cli.explain_report import Config, key_lines, value_lines
from megatron.cli.styled import plain, show_lines
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.describe import chosen_lines, override_lines, summary
from megatron.neox_arguments.explaining.key_names import Names, sort_words
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls
from megatron.neox_arguments.resolving.resolve import derive_all
from megatron.neox_arguments.resolving.smallest_world import smallest_world


def main(argv: Sequence[str]) -> int:
    """Returns 0. Raises ConfigError for a key that does not exist and for files that cannot be read."""
    options = parse_explain_args(argv)
    names = sort_words(options.words, directory=options.conf_dir)
    config = load(names, options.conf_dir) if names.files or names.assignments else None
    if config is None:
        show_lines(line for key in names.keys for line in [*key_lines(key), plain()])
        return 0
    if names.keys:
        show_lines(line for key in names.keys for line in [*value_lines(key, config), plain()])
    else:
        show_lines(map(plain, overview(config)))
    show_lines(map(plain, problem_lines(config)))
    return 0


def parse_explain_args(argv: Sequence[str]) -> argparse.Namespace:
    """The words after `explain`."""
    parser = CommandLine(
        "deepy.py explain",
        example="deepy.py explain lr configs/125M.yml",
        description="Tell what a key means and, with configs, which value it has there and where that comes from.",
    )
    parser.add_config(
        "keys (also optimizer.params.lr or derived values such as mlp_width); YAML files; single keys. "
        "Without a KEY: every value that is not a default",
        metavar="KEY | CONFIG | key=value",
    )
    return parser.parse_intermixed_args(argv)


def load(names: Names, directory: str | None) -> Config:
    """The config, resolved as far as it goes, on the smallest number of processes it allows."""
    written = apply_overrides(read_ymls(names.files, directory=directory), names.assignments)
    draft, translations, missing = derive_all(NeoXArgs, written, world_size=smallest_world(written), planning=True)
    return Config(written, draft, translations, missing)


def overview(config: Config) -> list[str]:
    """Everything that is not a default."""
    if config.draft.problems:
        chosen, overridden = chosen_lines(config.written), override_lines(config.written)
        return [*chosen, *(["Overridden", *(f"  {line}" for line in overridden), ""] if overridden else [])]
    args = NeoXArgs.from_resolved(config.draft.values)
    return [*summary(args, config.written, planning=True), ""]


def problem_lines(config: Config) -> Iterator[str]:
    """What keeps the config from running."""
    problems = [f"error: {problem}" for problem in config.draft.problems]
    problems += [f"not built yet: {config.draft.describe(item.keys, item.reason)}" for item in config.missing]
    if problems:
        yield f"{'One problem keeps' if len(problems) == 1 else f'{len(problems)} problems keep'} this config from running:"
    for problem in problems:
        yield from (f"  {line}" for line in problem.splitlines())
