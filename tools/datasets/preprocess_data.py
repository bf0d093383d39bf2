"""Tokenise JSON lines into `OUTPUT_PREFIX_KEY_document.bin` and `.idx`; takes the options of GPT-NeoX's script of this name.

    python tools/datasets/preprocess_data.py --input a.jsonl,b.jsonl.gz --output-prefix data/mine \
        --tokenizer-type HFTokenizer --vocab-file tokenizer.json --append-eod --workers 8
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command
from megatron.components import TOKENIZERS


def main() -> None:
    args = parse_arguments()
    # Imported late, so that --help is immediate and worker processes, which import this file, start quickly.
    from rich.console import Console

    from megatron.data.encode import encode_jsonl
    from megatron.data.encode_progress import build_progress
    from megatron.data.encode_worker import EncodeRecipe
    from megatron.tokenizer.base import TokenizerSettings

    progress = build_progress(Console(stderr=True), total=input_size(args.input), log_interval=args.log_interval)
    datasets = encode_jsonl(
        args.input,
        EncodeRecipe(
            TokenizerSettings(args.tokenizer_type, args.vocab_file, args.merge_file, args.eod_token),
            keys=tuple(dict.fromkeys(args.jsonl_keys)),
            append_eod=args.append_eod,
            fix_text=args.ftfy,
        ),
        output_prefix=args.output_prefix,
        workers=args.workers,
        progress=progress,
    )
    for dataset in datasets:
        print(f"{dataset.prefix}.bin, .idx: {dataset.documents:,} documents, {dataset.tokens:,} tokens")
    if progress.skipped:
        print(f"skipped {progress.skipped:,} documents without tokens")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Tokenise JSON lines into an indexed dataset.")
    group = parser.add_argument_group("input")
    group.add_argument("--input", required=True, type=comma_list, metavar="FILE[,FILE...]",
                       help=".jsonl files, plain, .gz or .zst, in this order")  # fmt: skip
    group.add_argument("--jsonl-keys", nargs="+", default=["text"], metavar="KEY",
                       help="keys to tokenise, each into an output of its own (default: text)")  # fmt: skip
    group.add_argument("--num-docs", type=int, help="accepted for old scripts: progress is told from the bytes read")
    group = parser.add_argument_group("tokenizer")
    group.add_argument("--tokenizer-type", required=True, metavar="TYPE", help=f"one of {', '.join(TOKENIZERS)}")
    group.add_argument("--vocab-file", help="its vocabulary: a file, a directory or a name, according to the type")
    group.add_argument("--merge-file", help="its merges, if the type has such a file")
    group.add_argument(
        "--eod-token", help="the token that ends a document, if its vocabulary has several or none of the usual"
    )
    group.add_argument("--append-eod", action="store_true", help="end every document with the end-of-document token")
    group.add_argument("--ftfy", action="store_true", help="repair wrongly decoded text with ftfy first")
    group = parser.add_argument_group("output")
    group.add_argument("--output-prefix", required=True, type=Path, help="path the names of the files begin with")
    group.add_argument("--dataset-impl", default="mmap", choices=["mmap"], help="the only kind there is")
    group = parser.add_argument_group("running")
    group.add_argument("--workers", type=int, default=1, help="processes that tokenise (default: %(default)s)")
    group.add_argument("--log-interval", type=int, default=100, help="documents between two updates of the progress")
    return parser.parse_args()


def comma_list(text: str) -> list[Path]:
    """`a,b` as paths."""
    return [Path(part.strip()) for part in text.split(",") if part.strip()]


def input_size(paths: list[Path]) -> int:
    """Bytes on disk of the files that exist; the others are told of later, all at once."""
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    run_command(main)
