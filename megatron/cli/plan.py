"""`deepy.py plan CONFIG...`: what a run needs on which devices, whether it fits, how long it takes and how to lay it out.

Nothing starts, and torch is not imported.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from megatron import text
from megatron.cli.command_line import CommandLine
from megatron.cli.styled import Line, plain, show_lines
from megatron.errors import NeoXError
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls, split_arguments
from megatron.planning.hardware.clusters import choose_cluster, without_world
from megatron.planning.hardware.devices import parse_gpus
from megatron.planning.page.report import DEFAULT_MFU, Section, page
from megatron.planning.study import study


def main(argv: Sequence[str]) -> int:
    """Print the page; 0 also when nothing fits. Raises NeoXError for a config that no layout would repair."""
    options = parse_plan_args(argv)
    files, assignments = split_arguments(options.words)
    values = apply_overrides(read_ymls(files, directory=options.conf_dir), assignments)
    cluster, notes = choose_cluster(values, options.gpus)
    values = without_world(values)
    studied = study(values, cluster, vocab_size=options.vocab_size, layouts=options.layouts)
    title = f"{' '.join(files) or 'the command line'} on {cluster}"
    show_lines(page_lines(title, notes, page(studied, mfu=options.mfu)))
    return 0


def parse_plan_args(argv: Sequence[str]) -> argparse.Namespace:
    """The words after `plan`."""
    parser = CommandLine(
        "deepy.py plan",
        example="deepy.py plan configs/20B.yml --gpus 96xA100-40GB",
        description="Tell what a run needs: memory, time, and layouts that fit. Starts nothing.",
    )
    parser.add_config("YAML files, later ones win; then single keys, e.g. model_parallel_size=2")
    parser.add_argument(
        "--gpus",
        type=_argument(parse_gpus),
        metavar="DEVICES",
        help="e.g. 8xA100-80GB, 96xA100-40GB (nodes of 8), 12x4xH100 (12 nodes of 4); default: those found here or in the hostfile",
    )
    parser.add_argument("--vocab-size", type=_argument(_whole_number), metavar="N", help="entries of the tokenizer")
    parser.add_argument(
        "--mfu",
        type=_argument(_share),
        default=DEFAULT_MFU,
        metavar="SHARE",
        help="share of the peak speed that the run is assumed to reach (%(default)s)",
    )
    parser.add_argument(
        "--layouts",
        type=_argument(_whole_number),
        metavar="N",
        help="propose N layouts, even when the config's own fits",
    )
    return parser.parse_intermixed_args(argv)


def page_lines(title: str, notes: Sequence[str], sections: Sequence[Section]) -> Iterator[Line]:
    """The page with its headlines, one blank line between sections."""
    yield plain(f"Plan for {title}", "bold")
    yield from (plain(line) for note in notes for line in text.wrap(f"note: {note}", hanging=6))
    for section in sections:
        yield plain()
        yield plain(section.title, "bold cyan")
        yield from map(plain, section.lines)


def _argument(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of option values whose refusals argparse prints as they are."""

    def convert(written: str) -> Any:
        try:
            return read(written)
        except (NeoXError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _whole_number(written: str) -> int:
    if not written.isdigit() or int(written) == 0:
        raise ValueError(f'"{written}" is not a whole number above 0')
    return int(written)


def _share(written: str) -> float:
    try:
        share = float(written)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(
            f'"{written}" is not a share of the peak: expected a number above 0 and at most 1, such as 0.4'
        )
    return share
