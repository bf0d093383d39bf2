"""Train a byte-level BPE tokenizer on JSON lines or on a corpus, into a tokenizer.json for `tokenizer_type: HFTokenizer`.

python tools/datasets/train_tokenizer.py --input a.jsonl,b.jsonl.gz --vocab-size 32000 --output data/tokenizer.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command
from megatron.components import CORPORA


def main() -> None:
    args = parse_arguments()
    # Imported late, so that --help is immediate.
    from megatron.tokenizer.train import train_bpe

    tokenizer = train_bpe(islice(documents(args), args.num_docs), vocab_size=args.vocab_size)
    tokenizer.save(args.output)
    print(f"{args.output}: {tokenizer.vocab_size:,} tokens")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a byte-level BPE tokenizer.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", metavar="FILE[,FILE...]", help=".jsonl files, plain, .gz or .zst")
    source.add_argument("--corpus", help=f"or a corpus: one of {', '.join(CORPORA)}")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the corpus keeps its files")
    parser.add_argument("--jsonl-keys", nargs="+", default=["text"], metavar="KEY", help="keys to learn from")
    parser.add_argument("--num-docs", type=int, help="learn from the first N texts only (default: all)")
    parser.add_argument("--vocab-size", type=int, default=32000, help="entries at most (default: %(default)s)")
    parser.add_argument("--output", required=True, type=Path, help="the tokenizer.json to write")
    return parser.parse_args()


def documents(args: argparse.Namespace) -> Iterator[str]:
    """The texts of the corpus or of the files."""
    from megatron.data.corpora.prepare import build_corpus
    from megatron.data.documents import check_inputs, read_texts

    if args.corpus is not None:
        corpus = build_corpus(args.corpus, data_directory=args.data_dir)
        corpus.prepare()
        return corpus.documents()
    paths = [Path(part.strip()) for part in args.input.split(",") if part.strip()]
    check_inputs(paths)
    return read_texts(paths, tuple(args.jsonl_keys))


if __name__ == "__main__":
    run_command(main)
