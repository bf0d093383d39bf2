"""What the commands that encode files have in common: their options, the run, and what they say about it.

Imports are late, so that --help is immediate and worker processes, which import the script, start quickly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.command import say
from megatron.components import TOKENIZERS

if TYPE_CHECKING:
    from megatron.data.encoding.files import EncodedFiles
    from megatron.data.encoding.worker import EncodeRecipe
    from megatron.tokenizer.base import TokenizerSettings

FORMATS = """\
inputs, by the end of their names:
  .jsonl .ndjson .json   a JSON object a line (a .json file may be one array of them); an archive's {"text": ..., "meta": ...}
  .txt                   plain text: a file is a document
  .parquet               a row is a document; keys are columns
  .dat .tar .zip         archives, of lm_dataformat and others; members are read as files of their names are
  .gz .zst .xz .bz2      after any of these but .parquet and .zip
(.parquet and .zst need requirements/requirements-preprocessing.txt.)
A directory is searched for such files; directories and globs are read in the order of their paths.
"""
LEFT_OUT_SHOWN = 3


def build_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help ends with the formats."""
    return argparse.ArgumentParser(
        description=description, epilog=FORMATS, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_input_options(parser: argparse.ArgumentParser, *, default_key: str, keys: str) -> None:
    """--input and how it is read. keys: what --jsonl-keys are for."""
    group = parser.add_argument_group("input")
    group.add_argument("--input", required=True, nargs="+", metavar="PATH[,PATH...]",
                       help="files, directories and globs, read in this order; see below")  # fmt: skip
    group.add_argument("--jsonl-keys", nargs="+", default=[default_key], metavar="KEY",
                       help=f"{keys} (default: {default_key})")  # fmt: skip
    group.add_argument(
        "--num-docs", type=positive, help="documents there are, if known: progress counts them, not bytes"
    )
    group.add_argument("--on-error", choices=["fail", "skip"], default="fail",
                       help="what a bad document does: end the run, or be left out of all outputs, counted and "
                            "listed (default: %(default)s)")  # fmt: skip


def add_tokenizer_options(parser: argparse.ArgumentParser) -> None:
    """Which tokenizer, and what is done to the texts before and after it."""
    group = parser.add_argument_group("tokenizer")
    group.add_argument("--tokenizer-type", required=True, metavar="TYPE", help=f"one of {', '.join(TOKENIZERS)}")
    group.add_argument("--vocab-file", help="its vocabulary: a file, a directory or a name, according to the type")
    group.add_argument("--merge-file", help="its merges, if the type has such a file")
    add_ending_options(group)
    group.add_argument("--append-eod", action="store_true", help="end every document with the end-of-document token")


def add_ending_options(group: argparse._ArgumentGroup) -> None:
    """The options that every tokenizer has."""
    group.add_argument(
        "--eod-token", help="the token that ends a document, if its vocabulary has several or none of the usual"
    )
    group.add_argument("--ftfy", action="store_true", help="repair wrongly decoded text with ftfy first")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Where it is written, and how it is run."""
    group = parser.add_argument_group("output")
    group.add_argument("--output-prefix", required=True, type=output_prefix,
                       help="path the names of the files begin with")  # fmt: skip
    group.add_argument("--dataset-impl", default="mmap", choices=["mmap"], help="the only kind there is")
    group = parser.add_argument_group("running")
    group.add_argument("--workers", type=int, default=1, help="processes that tokenise (default: %(default)s)")
    group.add_argument("--log-interval", type=positive, default=100,
                       help="documents between two updates of the progress (default: %(default)s)")  # fmt: skip
    group.add_argument("--resume", action="store_true",
                       help="continue a run that was stopped or killed, if there is one")  # fmt: skip


def output_prefix(text: str) -> Path:
    """A path that the names of files can begin with."""
    path = Path(text)
    if not path.name or text.endswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is no beginning of names of files: add one, as in {path / 'mine'}")
    return path


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def tokenizer_settings(args: argparse.Namespace) -> TokenizerSettings:
    """The tokenizer that `add_tokenizer_options` describe."""
    from megatron.tokenizer.base import TokenizerSettings

    return TokenizerSettings(args.tokenizer_type, args.vocab_file, args.merge_file, args.eod_token)


def keys_of(args: argparse.Namespace) -> tuple[str, ...]:
    """--jsonl-keys, each once."""
    return tuple(dict.fromkeys(args.jsonl_keys))


def encode(args: argparse.Namespace, build_recipe: Callable[[], EncodeRecipe]) -> EncodedFiles:
    """Encode the input that `args` name, and tell what was written and what not. Raises NeoXError."""
    from rich.console import Console

    from megatron.data.encoding.files import encode_files
    from megatron.data.encoding.progress import build_progress
    from megatron.data.encoding.work import is_unfinished
    from megatron.data.inputs.paths import find_inputs, split_commas

    inputs = find_inputs([word for words in args.input for word in split_commas(words)])
    _tell_left_out(inputs.left_out)
    if is_unfinished(args.output_prefix) and not args.resume:
        note("an unfinished run for this output is discarded; with --resume it would have been continued")
    progress = build_progress(
        Console(stderr=True),
        total=sum(path.stat().st_size for path in inputs.files),
        total_documents=args.num_docs,
        log_interval=args.log_interval,
    )
    try:
        encoded = encode_files(
            inputs.files,
            build_recipe(),
            output_prefix=args.output_prefix,
            workers=args.workers,
            progress=progress,
            on_error=args.on_error,
            resume=args.resume,
        )
    except BaseException:
        if is_unfinished(args.output_prefix):
            note(f"what is finished is kept in {args.output_prefix}.partial: the same command with --resume continues")
        raise
    _tell(encoded)
    return encoded


def note(text: str) -> None:
    """A line beside the output."""
    sys.stderr.write(f"{text}\n")


def _tell(encoded: EncodedFiles) -> None:
    counts = encoded.counts
    for dataset in encoded.datasets:
        say(f"{dataset.prefix}.bin, .idx: {dataset.documents:,} documents, {dataset.tokens:,} tokens")
    if counts.skipped:
        say(f"skipped {counts.skipped:,} documents without tokens")
    if counts.bad:
        more = counts.bad - len(encoded.bad)
        say(f"left out {counts.bad:,} bad documents" + (f", of which {more:,} are not listed" if more else ""))
        for line in encoded.bad:
            note(line)


def _tell_left_out(paths: Sequence[Path]) -> None:
    """Files of directories and globs that are not inputs."""
    if paths:
        shown = ", ".join(map(str, paths[:LEFT_OUT_SHOWN]))
        more = f" and {len(paths) - LEFT_OUT_SHOWN:,} more" if len(paths) > LEFT_OUT_SHOWN else ""
        note(f"not read, as their names end in no known format: {shown}{more}")
