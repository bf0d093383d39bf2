"""Train a tokenizer on JSON lines or on a corpus: byte-level BPE into a tokenizer.json, or SentencePiece into a model file.

python tools/datasets/train_tokenizer.py --input a.jsonl,b.jsonl.gz --vocab-size 32000 --output data/tokenizer.json
python tools/datasets/train_tokenizer.py --input a.jsonl --tokenizer-type SPMTokenizer --model-type bpe --output data/tokenizer.model
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command
from megatron.components import CORPORA, TOKENIZERS

if TYPE_CHECKING:
    from megatron.tokenizer.hf import HFTokenizer
    from megatron.tokenizer.sentencepiece import SPMTokenizer


def main() -> None:
    args = parse_arguments()
    texts = islice(documents(args), args.num_docs)
    tokenizer = TRAINERS[args.tokenizer_type](args, texts)
    tokenizer.save(args.output)
    print(f"{args.output}: {tokenizer.vocab_size:,} tokens")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a tokenizer.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input", metavar="PATH[,PATH...]", help="files, directories or globs: .jsonl, .parquet, .txt, ..."
    )
    source.add_argument("--corpus", help=f"or a corpus: one of {', '.join(CORPORA)}")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the corpus keeps its files")
    parser.add_argument("--jsonl-keys", nargs="+", default=["text"], metavar="KEY", help="keys to learn from")
    parser.add_argument("--num-docs", type=int, help="learn from the first N texts only (default: all)")
    parser.add_argument("--vocab-size", type=int, default=32000, help="entries at most (default: %(default)s)")
    parser.add_argument("--tokenizer-type", default="HFTokenizer", choices=TRAINERS,
                        help="byte-level BPE for HFTokenizer, or a SentencePiece model (default: %(default)s)")  # fmt: skip
    parser.add_argument("--model-type", default="unigram", choices=["unigram", "bpe"],
                        help="of a SentencePiece model (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", required=True, type=Path, help="the tokenizer.json or the .model to write")
    return parser.parse_args()


# The trainers are imported late, so that --help is immediate.
def train_hf(args: argparse.Namespace, texts: Iterator[str]) -> HFTokenizer:
    """A byte-level BPE tokenizer."""
    from megatron.tokenizer.train import train_bpe

    return train_bpe(texts, vocab_size=args.vocab_size)


def train_spm(args: argparse.Namespace, texts: Iterator[str]) -> SPMTokenizer:
    """A SentencePiece model. Raises MissingRequirement without the package."""
    TOKENIZERS.load("SPMTokenizer")
    from megatron.tokenizer.train_sentencepiece import train_sentencepiece

    return train_sentencepiece(texts, vocab_size=args.vocab_size, model_type=args.model_type)


TRAINERS: dict[str, Callable[[argparse.Namespace, Iterator[str]], HFTokenizer | SPMTokenizer]] = {
    "HFTokenizer": train_hf,
    "SPMTokenizer": train_spm,
}


def documents(args: argparse.Namespace) -> Iterator[str]:
    """The texts of the corpus or of the files."""
    from megatron.data.corpora.names import build_corpus
    from megatron.data.documents import read_texts
    from megatron.data.inputs.paths import find_inputs, split_commas

    if args.corpus is not None:
        corpus = build_corpus(args.corpus, data_directory=args.data_dir)
        corpus.prepare()
        return corpus.documents()
    return read_texts(find_inputs(split_commas(args.input)).files, tuple(args.jsonl_keys))


if __name__ == "__main__":
    run_command(main)
