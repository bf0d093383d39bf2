"""The command line of convert_hf_to_neox.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

UNPROVEN = 3
"""The exit status of a conversion that could not be compared with anything."""


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return build_parser().parse_args(words)


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        description="Write a model of another program as a checkpoint, with its configuration and tokenizer, and prove that both compute the same. "
        "A run can as well begin from the model itself (load: hf:DIR): nothing needs to be converted for that.",
        epilog=f"Exits with 0; with 1 after a mistake, or when the checkpoint computes something else: then there is nothing but the report of it; "
        f"with {UNPROVEN} when no model of Hugging Face transformers is like this one, so that it could not be compared.",
    )
    parser.add_argument("model", metavar="MODEL", help="a directory of Hugging Face transformers, hf:ORGANISATION/NAME of their Hub, a directory of GPT-NeoX, or Llama as Meta publishes it")  # fmt: skip
    parser.add_argument("--output_dir", "--output-dir", metavar="DIR", help="the directory to write; it is there whole and proven, or not at all (default: converted/NAME)")  # fmt: skip
    parser.add_argument("--config-only", action="store_true", help="write the configuration and the tokenizer alone")
    parser.add_argument("--iteration", type=int, metavar="N", help="of a directory of GPT-NeoX, the checkpoint of this iteration")  # fmt: skip
    parser.add_argument("--vocab-size", type=int, metavar="N", help="rows of the vocabulary without padding, for checkpoints of GPT-NeoX")  # fmt: skip
    parser.add_argument("--trust-checkpoint", action="store_true", help="read pickled files that may run code, of models whose origin you know")  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model that was converted before, by one that is proven"
    )
    return parser


def default_output(model: str) -> Path:
    """`converted/NAME`."""
    return Path("converted") / Path(model.removeprefix("hf:").partition("@")[0]).name
