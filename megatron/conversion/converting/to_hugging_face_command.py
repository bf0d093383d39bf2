"""What convert_neox_to_hf.py does: opens the checkpoint, converts it, and gives the lines to print and the exit status."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence

from megatron.checkpointing.inspecting.lines import Line
from megatron.conversion.converting.report_page import conversion_lines
from megatron.conversion.converting.to_hugging_face import to_hugging_face
from megatron.conversion.opening import open_model
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import read_ymls
from megatron.neox_arguments.resolving.smallest_world import smallest_world

Show = Callable[[Iterable[Line]], None]
"""Prints lines."""


def run(args: argparse.Namespace, show: Show) -> int:
    """Do what the command line says; the exit status. Raises NeoXError for a user's mistake."""
    opened = open_model(
        args.input_dir,
        iteration=args.iteration,
        trusted=args.trust_checkpoint,
        vocab_size=args.vocab_size,
        args=settings_of(args.config_file) if args.config_file else None,
    )
    conversion = to_hugging_face(
        opened,
        args.output_dir,
        wanted=args.architecture,
        precision=args.precision,
        shard_bytes=args.max_shard_size,
        overwrite=args.overwrite,
    )
    show(conversion_lines(conversion, args.output_dir))
    return int(not conversion.equal)


def settings_of(files: Sequence[str]) -> NeoXArgs:
    """The configuration in files, without the machines it is meant for. Raises ConfigError."""
    values = read_ymls(files)
    return NeoXArgs.from_values(values, world_size=smallest_world(values), planning=True)
