"""What convert_hf_to_neox.py does: opens the model, converts it, and gives the lines to print and the exit status."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from megatron.checkpointing.inspecting.lines import Line
from megatron.conversion.converting.report_page import conversion_lines
from megatron.conversion.converting.to_checkpoint import to_checkpoint, write_config_only
from megatron.conversion.converting.to_checkpoint_config import CONFIG
from megatron.conversion.converting.to_checkpoint_parser import UNPROVEN, default_output
from megatron.conversion.opening import open_model
from megatron.errors import CheckpointError
from megatron.foreign import program_of_load

Show = Callable[[Iterable[Line]], None]
"""Prints lines."""


def run(args: argparse.Namespace, show: Show) -> int:
    """Do what the command line says; the exit status. Raises NeoXError for a user's mistake."""
    if program_of_load(args.model) is None:
        raise CheckpointError(
            f"{args.model} is no model of another program: give a directory of Hugging Face transformers, of GPT-NeoX or of Meta's Llama, "
            "or hf:ORGANISATION/NAME"
        )
    output = args.output_dir or default_output(args.model)
    opened = open_model(args.model, iteration=args.iteration, trusted=args.trust_checkpoint, vocab_size=args.vocab_size)
    if args.config_only:
        copied = write_config_only(opened, output, overwrite=args.overwrite)
        show(
            [
                [(f"wrote {output}/{CONFIG}", "")],
                *([[("note: ", "yellow"), (copied.remark, "")]] if copied.remark else []),
            ]
        )
        return 0
    conversion = to_checkpoint(opened, output, overwrite=args.overwrite)
    show(conversion_lines(conversion, output, into="a checkpoint of iteration 0"))
    if conversion.equal:
        return 0
    return 1 if conversion.family else UNPROVEN
