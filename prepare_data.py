"""Prepare corpora for training: `python prepare_data.py [CORPUS[,CORPUS]]` brings the text here and makes its tokenizer and `.bin/.idx`.

    python prepare_data.py enwik8 -d data -t GPT2BPETokenizer
    python prepare_data.py hf:wikimedia/wikipedia:20231101.de --vocab-file tokenizer.json
    python prepare_data.py file:books/,extra.jsonl.gz --name mine

A second call finds everything there and does nothing. A call that was cut off, by Ctrl-C, `kill -9` or a dead network, goes on where it
stopped. `python prepare_data.py --list` says which corpora there are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.command import run_command
from megatron.components import TOKENIZERS
from megatron.environment import available_cores

if TYPE_CHECKING:
    from rich.console import Console

    from megatron.data.corpora.prepare import PreparedCorpus


def main() -> None:
    args = parse_arguments()
    # Imported late, so that --help is immediate and worker processes, which import this file, start quickly.
    from rich.console import Console

    output = Console(soft_wrap=True, highlight=False, markup=False)
    if args.list:
        from megatron.data.corpora.listing import show_corpora

        show_corpora(output)
        return
    prepared = prepare(args, Console(stderr=True))
    for one in prepared:
        describe(one, output)
    if len(prepared) > 1:
        output.print("all of them in a config:")
        output.print(f"  train_data_paths: [{', '.join(str(one.prefix) for one in prepared)}]")


def prepare(args: argparse.Namespace, console: Console) -> list[PreparedCorpus]:
    """Prepare the corpora one after the other; a tokenizer that is trained for the first is used for all."""
    from megatron.data.corpora.download.parallel import DownloadSettings
    from megatron.data.corpora.gpt2 import with_gpt2_files
    from megatron.data.corpora.names import Choice, build_corpora
    from megatron.data.corpora.prepare import prepare_corpus
    from megatron.tokenizer.base import TokenizerSettings

    choice = Choice(args.text_key, args.split, args.hf_files, args.files, args.name)
    corpora = build_corpora(args.corpus, data_directory=args.data_dir, choice=choice)
    downloads = DownloadSettings(connections=args.connections, timeout=args.timeout, console=console)
    settings = TokenizerSettings(args.tokenizer_type, args.vocab_file, args.merge_file, args.eod_token)
    settings = with_gpt2_files(settings, args.data_dir, downloads)
    prepared: list[PreparedCorpus] = []
    for corpus in corpora:
        one = prepare_corpus(
            corpus,
            tokenizer=settings,
            vocab_size=args.vocab_size,
            workers=args.workers,
            force=args.force,
            console=console,
            downloads=downloads,
            on_error=args.on_error,
        )
        prepared.append(one)
        settings = one.tokenizer
    return prepared


def parse_arguments() -> argparse.Namespace:
    """The command line; the options GPT-NeoX's script has keep their names."""
    parser = argparse.ArgumentParser(
        description="Make corpora ready for training.",
        epilog="HTTPS_PROXY and NO_PROXY are obeyed; HF_TOKEN opens datasets that ask for permission; HF_ENDPOINT names a mirror of the hub.",
    )
    add = parser.add_argument_group("what").add_argument
    add("corpus", nargs="?", default="python_stdlib", metavar="CORPUS[,CORPUS]",
        help="names of --list, hf:NAME[:CONFIG], file:PATH, https://... (default: %(default)s)")  # fmt: skip
    add("--list", action="store_true", help="list the corpora and stop")
    add("--files", type=int, metavar="N", help="only the first N files of each corpus")
    add("--split", default="train", help="of a dataset of the hub (default: %(default)s)")
    add("--text-key", "--text-column", dest="text_key", default="text", metavar="KEY",
        help="where hub datasets, files and addresses have their text (default: %(default)s)")  # fmt: skip
    add("--hf-files", metavar="PATTERN", help="files of the hub's repository itself, such as 'train/*.jsonl.zst'")
    add = parser.add_argument_group("tokenizer").add_argument
    add("-t", "--tokenizer", "--tokenizer-type", dest="tokenizer_type", default="HFTokenizer", metavar="TYPE",
        help=f"one of {', '.join(TOKENIZERS)} (default: %(default)s)")  # fmt: skip
    add(
        "-v",
        "--vocab-file",
        help="its vocabulary; without one, an HFTokenizer is trained on the corpus and GPT-2's is downloaded",
    )
    add("-m", "--merge-file", help="its merges, if its type has such a file")
    add("--eod-token", help="the token that ends a document, if the vocabulary has several or none of the usual")
    add("--vocab-size", type=int, default=4096, help="size of a trained vocabulary (default: %(default)s)")
    add = parser.add_argument_group("where and how").add_argument
    add("-d", "--data-dir", type=Path, default=Path(os.environ.get("DATA_DIR", "data")),
        help="where CORPUS/ is made (default: $DATA_DIR, else data)")  # fmt: skip
    add("--name", help="what CORPUS/ is called (default: the name, or from the name of the first file)")
    add("-nw", "--num-workers", "--workers", dest="workers", type=int, default=available_cores(),
        help="processes that tokenise (default: one a core, %(default)s)")  # fmt: skip
    add(
        "--on-error",
        choices=["fail", "skip"],
        default="fail",
        help="what a bad document in a file does (default: %(default)s)",
    )
    add("--connections", type=int, default=4, help="files that are downloaded at a time (default: %(default)s)")
    add(
        "--timeout",
        type=float,
        default=30.0,
        help="seconds a server may be silent before a new try (default: %(default)s)",
    )
    add("-f", "--force", "--force-redownload", dest="force", action="store_true",
        help="download and make everything anew")  # fmt: skip
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
