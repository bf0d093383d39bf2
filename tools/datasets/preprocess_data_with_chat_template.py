"""Tokenise conversations with the chat template of a Hugging Face tokenizer; takes the options of GPT-NeoX's script of this name.

    python tools/datasets/preprocess_data_with_chat_template.py --input chats.jsonl --output-prefix data/mine \
        --tokenizer-path hf_model/ --jsonl-keys messages

A key holds a list of messages: {"role": "user", "content": "..."}. Written are, document by document side by side,

    data/mine_messages_document          the tokens
    data/mine_messages_label_document    the token where it is trained on, else -100 (int32); not with --no-mask
    data/mine_messages_reward_document   with --reward-key: one number (float32) a document, as KTO needs

Pairs of conversations are two keys of one command (--jsonl-keys chosen rejected): a record that is left out of one output is left out of
all. Trained on are the turns of --generation-role, or what the template puts in {% generation %} blocks. Every conversation ends with the
end-of-document token; it is appended where the template does not write it, and trained on when the token before it is.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command, say
from megatron.data.encoding.command import (
    add_ending_options,
    add_input_options,
    add_output_options,
    build_parser,
    encode,
    keys_of,
)

if TYPE_CHECKING:
    from megatron.data.derived.chat import ChatRecipe, Trained


def main() -> None:
    args = parse_arguments()
    counts = encode(args, lambda: build_recipe(args)).counts
    if counts.untrained:
        say(f"{counts.untrained:,} conversations have no turn that is trained on")
    if counts.untrained == counts.documents * len(keys_of(args)):
        roles = " ".join(args.generation_role)
        say(
            f"so there is nothing to train on: check --generation-role ({roles}), or the {{% generation %}} blocks of the template"
        )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = build_parser("Tokenise conversations into an indexed dataset, and a dataset of labels beside it.")
    add_input_options(parser, default_key="conversation", keys="keys of conversations, each into outputs of its own")
    group = parser.add_argument_group("what is trained on")
    group.add_argument("--generation-role", nargs="+", default=["assistant"], metavar="ROLE",
                       help="roles whose turns are trained on (default: assistant)")  # fmt: skip
    group.add_argument("--only-last", action="store_true", help="train on the last of these turns alone")
    group.add_argument("--for-rm", action="store_true", help="train on the last token alone, as reward models do")
    group.add_argument("--no-mask", action="store_true", help="train on everything: no labels are written")
    group.add_argument(
        "--reward-key", metavar="KEY", help="key of a number, or of true (1) or false (-1), to write beside"
    )
    group = parser.add_argument_group("tokenizer")
    group.add_argument("--tokenizer-path", required=True, type=Path, metavar="PATH",
                       help="directory of a Hugging Face tokenizer, or its tokenizer.json")  # fmt: skip
    group.add_argument("--chat-template", type=Path, metavar="FILE", help="a Jinja template instead of the tokenizer's")
    group.add_argument("--date", type=day, default=None, metavar="YYYY-MM-DD",
                       help="the day of templates that write one (default: today)")  # fmt: skip
    add_ending_options(group)
    add_output_options(parser)
    args = parser.parse_args()
    if args.no_mask and (args.only_last or args.for_rm):
        parser.error("--no-mask trains on everything, --only-last and --for-rm on a part: give one of them")
    return args


def day(text: str) -> date:
    """A date."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2024-07-26") from None


def build_recipe(args: argparse.Namespace) -> ChatRecipe:
    """What is made of the conversations."""
    from megatron.data.derived.chat import ChatRecipe
    from megatron.data.derived.template_files import load_chat_template
    from megatron.tokenizer.base import TokenizerSettings

    return ChatRecipe(
        TokenizerSettings("HFTokenizer", str(args.tokenizer_path), eod_token=args.eod_token),
        keys=keys_of(args),
        fix_text=args.ftfy,
        template=load_chat_template(args.tokenizer_path, file=args.chat_template, today=args.date or date.today()),
        roles=tuple(dict.fromkeys(args.generation_role)),
        trained=trained(args),
        reward_key=args.reward_key,
    )


def trained(args: argparse.Namespace) -> Trained:
    """What is trained on."""
    if args.no_mask:
        return "all"
    if args.for_rm:
        return "last token"
    return "last turn" if args.only_last else "turns"


if __name__ == "__main__":
    run_command(main)
