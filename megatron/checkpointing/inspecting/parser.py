"""The command line of inspect_checkpoint.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Names of dtypes as configs have them."""


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; options that have no effect together are refused."""
    parser = build_parser()
    args = parser.parse_args(words)
    if (args.path is None) == (args.compare is None):
        parser.error("give the PATH of a checkpoint, of a directory of checkpoints, or a URL; or two behind --compare")
    if args.consolidate is None:
        for option in ("optimizer", "dtype", "force"):
            if getattr(args, option):
                parser.error(f"--{option} is about --consolidate")
    if args.tolerance is not None and args.compare is None:
        parser.error("--tolerance is about --compare")
    if args.digest and args.no_values:
        parser.error("--digest reads all values, which --no-values leaves out")
    if (args.digest or args.no_values) and (args.compare or args.verify or args.tensor or args.consolidate):
        parser.error("--digest and --no-values are about what is shown of a whole checkpoint")
    return args


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        description="Show what is in a checkpoint; compare two, verify one, or put its weights into one file.",
        epilog="Exits with 0; with 1 after a mistake, when --verify finds something wrong, or when --compare finds a difference.",
    )
    parser.add_argument(
        "path", nargs="?", metavar="PATH", help="a checkpoint, a directory of checkpoints (the one that loading takes is shown), or a URL of either"
    )  # fmt: skip
    parser.add_argument("--iteration", type=natural, metavar="N", help="the checkpoint of this iteration")
    parser.add_argument("--json", action="store_true", help="for programs")
    group = parser.add_argument_group("what is shown")
    group.add_argument("--no-values", action="store_true", help="without reading the tensors: no norms, at once")
    group.add_argument("--digest", action="store_true", help="with the hash of its content, the same in every layout")
    what = parser.add_argument_group("or one of these").add_mutually_exclusive_group()
    what.add_argument("--tensor", nargs="+", metavar="NAME", help="statistics and first values of tensors: names, parameters, or patterns such as '2.*.bias'")  # fmt: skip
    what.add_argument("--verify", action="store_true", help="hash every file (of each checkpoint in a directory)")
    what.add_argument("--compare", nargs=2, metavar=("A", "B"), help="where two checkpoints differ")
    what.add_argument("--consolidate", metavar="OUT.safetensors", help="write all weights to one file")
    group = parser.add_argument_group("with --compare")
    group.add_argument("--tolerance", type=share, metavar="X", help="take relative deviations up to X as equal")
    group = parser.add_argument_group("with --consolidate")
    group.add_argument("--optimizer", action="store_true", help="with the optimizer state")
    group.add_argument("--dtype", choices=DTYPES, help="of the weights (default: the one they were saved in)")
    group.add_argument("--force", action="store_true", help="replace a file that exists")
    return parser


def natural(text: str) -> int:
    """A whole number, 0 or above."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def share(text: str) -> float:
    """A number, 0 or above."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return number
