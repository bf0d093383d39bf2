"""Tokenise documents into `OUTPUT_PREFIX_KEY_document.bin` and `.idx`; takes the options of GPT-NeoX's script of this name.

    python tools/datasets/preprocess_data.py --input a.jsonl,b.jsonl.gz,more/ --output-prefix data/mine \
        --tokenizer-type HFTokenizer --vocab-file tokenizer.json --append-eod --workers 8

Killed or stopped, the same command with --resume continues where it was; the files come out the same to the byte.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command
from megatron.data.encoding.command import (
    add_input_options,
    add_output_options,
    add_tokenizer_options,
    build_parser,
    encode,
    keys_of,
    tokenizer_settings,
)

if TYPE_CHECKING:
    from megatron.data.encoding.worker import EncodeRecipe


def main() -> None:
    args = parse_arguments()
    encode(args, lambda: build_recipe(args))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = build_parser("Tokenise documents into an indexed dataset.")
    add_input_options(parser, default_key="text", keys="keys to tokenise, each into an output of its own")
    add_tokenizer_options(parser)
    add_output_options(parser)
    return parser.parse_args()


def build_recipe(args: argparse.Namespace) -> EncodeRecipe:
    """What is made of the documents."""
    from megatron.data.encoding.worker import EncodeRecipe

    return EncodeRecipe(tokenizer_settings(args), keys=keys_of(args), append_eod=args.append_eod, fix_text=args.ftfy)


if __name__ == "__main__":
    run_command(main)
