"""Prepare a corpus for training: `python prepare_data.py [CORPUS]` makes its tokenizer and its `.bin/.idx` dataset.

A second call finds everything there and does nothing. `python prepare_data.py --list` says which corpora there are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.command import run_command
from megatron.components import CORPORA, TOKENIZERS
from megatron.environment import available_cores

if TYPE_CHECKING:
    from rich.console import Console

    from megatron.data.corpora.prepare import PreparedCorpus


def main() -> None:
    args = parse_arguments()
    # Imported late, so that --help is immediate and worker processes, which import this file, start quickly.
    from rich.console import Console

    from megatron.data.corpora.prepare import build_corpus, prepare_corpus
    from megatron.tokenizer.base import TokenizerSettings

    output = Console(soft_wrap=True, highlight=False, markup=False)
    if args.list:
        for name in CORPORA:
            output.print(f"{name}: {CORPORA.load(name).description}")
        return
    prepared = prepare_corpus(
        build_corpus(args.corpus, data_directory=args.data_dir),
        tokenizer=TokenizerSettings(args.tokenizer_type, args.vocab_file, args.merge_file, args.eod_token),
        vocab_size=args.vocab_size,
        workers=args.workers,
        force=args.force,
        console=Console(stderr=True),
    )
    describe(prepared, output)


def parse_arguments() -> argparse.Namespace:
    """The command line; the options GPT-NeoX's script has keep their names."""
    parser = argparse.ArgumentParser(description="Make a corpus ready for training.")
    add = parser.add_argument
    add("corpus", nargs="?", default="python_stdlib", help="its name, see --list (default: %(default)s)")
    add("--list", action="store_true", help="list the corpora and stop")
    add("-t", "--tokenizer", "--tokenizer-type", dest="tokenizer_type", default="HFTokenizer", metavar="TYPE",
        help=f"one of {', '.join(TOKENIZERS)} (default: %(default)s)")  # fmt: skip
    add("-d", "--data-dir", type=Path, default=Path(os.environ.get("DATA_DIR", "data")),
        help="where CORPUS/ is made (default: $DATA_DIR, else data)")  # fmt: skip
    add("-v", "--vocab-file", help="the tokenizer's vocabulary; without one, an HFTokenizer is trained on the corpus")
    add("-m", "--merge-file", help="the tokenizer's merges, if its type has such a file")
    add("--eod-token", help="the token that ends a document, if the vocabulary has several or none of the usual")
    add("--vocab-size", type=int, default=4096, help="size of a trained vocabulary (default: %(default)s)")
    add("-nw", "--num-workers", "--workers", dest="workers", type=int, default=available_cores(),
        help="processes that tokenise (default: one a core, %(default)s)")  # fmt: skip
    add("-f", "--force", "--force-redownload", dest="force", action="store_true", help="make everything anew")
    return parser.parse_args()


def describe(prepared: PreparedCorpus, output: Console) -> None:
    """Say what lies where, and which lines of a config use it."""
    state = "ready" if prepared.remade else "already there, nothing to do"
    output.print(
        f"{prepared.name} is {state}: {prepared.documents:,} documents, {prepared.text_bytes / 1e6:.1f} MB, "
        f"{prepared.tokens:,} tokens of a vocabulary of {prepared.vocab_size:,}\n"
        f"  {prepared.prefix}.bin, .idx\n"
        "in a config:"
    )
    settings = {
        "data_path": prepared.prefix,
        "tokenizer_type": prepared.tokenizer.tokenizer_type,
        "vocab_file": prepared.tokenizer.vocab_file,
        "merge_file": prepared.tokenizer.merge_file,
        "eod_token": prepared.tokenizer.eod_token,
    }
    for key, value in settings.items():
        if value is not None:
            output.print(f"  {key}: {value}")


if __name__ == "__main__":
    run_command(main)
