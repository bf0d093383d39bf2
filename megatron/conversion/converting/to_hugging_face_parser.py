"""The command line of convert_neox_to_hf.py; the options that GPT-NeoX's tool of that name has are called as there."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from megatron.components import FAMILIES

AUTO = "auto"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return build_parser().parse_args(words)


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        description="Write a checkpoint as a model of Hugging Face transformers, and prove that this library computes the same with it.",
        epilog="Exits with 0; with 1 after a mistake, or when the model computes something else there: then there is nothing but the report of it.",
    )
    parser.add_argument("--input_dir", "--input-dir", required=True, metavar="DIR", help="a checkpoint, a directory of checkpoints (the one that loading takes is converted), or whatever else the key load may name")  # fmt: skip
    parser.add_argument("--output_dir", "--output-dir", required=True, metavar="DIR", help="the directory to write; it is there whole and proven, or not at all")  # fmt: skip
    parser.add_argument("--config_file", "--config-file", nargs="+", default=(), metavar="FILE", help="the configuration of the run, in place of the one that the checkpoint has")  # fmt: skip
    parser.add_argument("--iteration", type=int, metavar="N", help="the checkpoint of this iteration")
    parser.add_argument("--vocab-size", type=int, metavar="N", help="rows of the vocabulary without padding, for checkpoints of GPT-NeoX")  # fmt: skip
    parser.add_argument("--precision", choices=(AUTO, "fp16", "bf16", "fp32"), default=AUTO, help="of the weights (default: that of the training)")  # fmt: skip
    parser.add_argument("--architecture", choices=(AUTO, *FAMILIES), default=AUTO, help="the family of models to write it as (default: the first that can express it)")  # fmt: skip
    parser.add_argument("--max-shard-size", type=size, default="5GB", metavar="SIZE", help="of a file of weights (default: %(default)s)")  # fmt: skip
    parser.add_argument("--trust-checkpoint", action="store_true", help="read pickled files that may run code, of checkpoints whose origin you know")  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model that was converted before, by one that is proven"
    )
    return parser


def size(text: str) -> int:
    """Bytes: `5GB`, `500MB`, `1.5GiB`, `4096`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMG]I?B)?", text.strip().upper())
    found = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 5GB or 500MB")
    return found
