"""Show documents of a dataset, or the samples that a run of a config reads: tokens, borders of documents, positions, and what carries loss.

    python tools/datasets/show.py data/mine_text_document --document 0 7 --tokenizer-type HFTokenizer --vocab-file tokenizer.json
    python tools/datasets/show.py data/sft_messages_document --labels data/sft_messages_label_document --config my.yml
    python tools/datasets/show.py --config configs/python_10M.yml configs/local_setup.yml --sample 0 1

In colour on a terminal; the same without colour in pipes, or with NO_COLOR set.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command
from megatron.components import TOKENIZERS

if TYPE_CHECKING:
    from megatron.data.show import View
    from megatron.neox_arguments import NeoXArgs
    from megatron.tokenizer.base import Tokenizer

PIPE_WIDTH = 120


def main() -> None:
    parser = build_parser()
    args = parser.parse_args()
    check_arguments(parser, args)
    # Imported late, so that --help is immediate.
    from megatron.cli.styled import plain, show_lines
    from megatron.data.show_lines import LEGEND, lines_of, spell

    config = read_config(args.config) if args.config else None
    tokenizer = open_tokenizer(args, config)
    width = shutil.get_terminal_size((PIPE_WIDTH, 0)).columns
    legend = [plain(LEGEND, "dim")]
    for view in views(args, config, tokenizer):
        spelled = spell([token.number for token in view.tokens], tokenizer, ids=args.ids)
        show_lines([*legend, plain(), *lines_of(view, spelled, width=width)])
        legend = []


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Show documents of a dataset, or the samples that a run reads.")
    parser.add_argument("prefix", nargs="?", metavar="PREFIX", help="a dataset: the path its files begin with")
    parser.add_argument("--labels", metavar="PREFIX", help="its label data (-100 where no loss is taken)")
    parser.add_argument("--config", nargs="+", metavar="WORD",
                        help="YAML files, later ones win, and single keys such as seq_length=64: the run, or the tokenizer of PREFIX")  # fmt: skip
    group = parser.add_argument_group("what to show")
    what = group.add_mutually_exclusive_group()
    what.add_argument("--document", nargs="+", type=number, metavar="D",
                      help="documents of PREFIX, counted from 0 (default: 0)")  # fmt: skip
    what.add_argument("--sample", nargs="+", type=number, metavar="N",
                      help="samples of the run of --config (default: 0), or of PREFIX alone with --seq-length")  # fmt: skip
    group.add_argument("--part", metavar="NAME", help='samples of "train" (default), "validation" or "test"')
    group.add_argument("--seq-length", type=number, metavar="S", help="cut PREFIX into packed samples of S tokens")
    group.add_argument("--ids", action="store_true", help="show the number of every token, too")
    group = parser.add_argument_group(
        "tokenizer", "in place of that of --config; without both tokens are shown as numbers"
    )
    group.add_argument("--tokenizer-type", metavar="TYPE", help=f"one of {', '.join(TOKENIZERS)}")
    group.add_argument("--vocab-file", help="its vocabulary: a file, a directory or a name, according to the type")
    group.add_argument("--merge-file", help="its merges, if the type has such a file")
    return parser


def number(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that would have no effect beside the others."""
    if args.prefix is None and args.config is None:
        parser.error("give the PREFIX of a dataset, or --config with the files of a run")
    if args.prefix is None:
        for option in ("labels", "document", "seq_length"):
            if getattr(args, option) is not None:
                name = f"--{option.replace('_', '-')}"
                parser.error(f"{name} is about a PREFIX; the samples of a run have the data and the length of --config")
    else:
        if args.part is not None:
            parser.error("--part is about the run of --config; leave out PREFIX to see its samples")
        if (args.sample is None) != (args.seq_length is None):
            parser.error(
                "samples of PREFIX need both --sample and --seq-length; leave out PREFIX to see those of --config"
            )
        if args.seq_length == 0:
            parser.error("--seq-length must be at least 1")
    if args.tokenizer_type is None and (args.vocab_file or args.merge_file):
        parser.error("--vocab-file and --merge-file need --tokenizer-type")


def read_config(words: list[str]) -> NeoXArgs:
    """The configuration, for as few processes as it can have."""
    from megatron.neox_arguments import NeoXArgs
    from megatron.neox_arguments.reading.load import apply_overrides, read_ymls, split_arguments
    from megatron.neox_arguments.resolving.smallest_world import smallest_world

    files, assignments = split_arguments(words)
    values = apply_overrides(read_ymls(files), assignments)
    return NeoXArgs.from_values(values, world_size=smallest_world(values), planning=True)


def open_tokenizer(args: argparse.Namespace, config: NeoXArgs | None) -> Tokenizer | None:
    """The tokenizer that is named, or that of the config."""
    from megatron.tokenizer.base import TokenizerSettings
    from megatron.tokenizer.build import build_tokenizer

    if args.tokenizer_type is not None:
        return build_tokenizer(TokenizerSettings(args.tokenizer_type, args.vocab_file, args.merge_file))
    return None if config is None else build_tokenizer(config)


def views(args: argparse.Namespace, config: NeoXArgs | None, tokenizer: Tokenizer | None) -> Iterator[View]:
    """What is asked for, one after the other."""
    if args.prefix is None:
        assert config is not None
        assert tokenizer is not None
        from megatron.training.shown_run import open_run

        return open_run(config, tokenizer).views(args.part or "train", args.sample or [0])
    from megatron.data.indexed_dataset import open_tokens
    from megatron.data.labels import open_labels
    from megatron.data.show import view_of_document, views_of_packed_samples

    dataset = open_tokens(args.prefix)
    labels = None if args.labels is None else open_labels(args.labels, dataset)
    if args.sample is not None:
        return views_of_packed_samples(dataset, args.sample, seq_length=args.seq_length, labels=labels)
    return (view_of_document(dataset, document, labels) for document in args.document or [0])


if __name__ == "__main__":
    run_command(main)
