"""Tokenise documents of which only what follows a sequence of tokens is trained on; takes the options of GPT-NeoX's script of this name.

    python tools/datasets/preprocess_data_with_mask.py --input a.jsonl --output-prefix data/mine \
        --tokenizer-type HFTokenizer --vocab-file tokenizer.json --append-eod --mask-before-token 9,31,7

writes `data/mine_text_document` and, document by document and token by token beside it, `data/mine_text_label_document` (int32): the token
where it is trained on, -100 where not. Everything up to and including the first occurrence of the sequence in a document is not trained on.
Documents without it are trained on as a whole; how many there are is told. Name the two as train_data_paths and train_label_data_paths.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command, say
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
    from megatron.data.derived.mask import MaskRecipe


def main() -> None:
    args = parse_arguments()
    counts = encode(args, lambda: build_recipe(args)).counts
    if counts.unmasked:
        say(
            f"{counts.unmasked:,} documents do not have the tokens {args.mask_before_token}: they are trained on as a whole"
        )
    if counts.untrained:
        say(
            f"{counts.untrained:,} documents have nothing after the tokens {args.mask_before_token}: they are not trained on"
        )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = build_parser("Tokenise documents into an indexed dataset, and a dataset of labels beside it.")
    add_input_options(parser, default_key="text", keys="keys to tokenise, each into two outputs of its own")
    group = parser.add_argument_group("labels")
    group.add_argument("--mask-before-token", required=True, metavar="ID[,ID...]",
                       help="token ids: what comes before their first occurrence, and they, are not trained on")  # fmt: skip
    add_tokenizer_options(parser)
    add_output_options(parser)
    return parser.parse_args()


def build_recipe(args: argparse.Namespace) -> MaskRecipe:
    """What is made of the documents."""
    from megatron.data.derived.mask import MaskRecipe, parse_sequence

    return MaskRecipe(
        tokenizer_settings(args),
        keys=keys_of(args),
        append_eod=args.append_eod,
        fix_text=args.ftfy,
        mask_before=parse_sequence(args.mask_before_token),
    )


if __name__ == "__main__":
    run_command(main)
