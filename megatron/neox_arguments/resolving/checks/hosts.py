"""Which hosts a run may use; checked before hosts and devices are looked for."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.components import LAUNCHERS
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.reading.values import quote
from megatron.registry import did_you_mean

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_hostfile_exists(args: Draft) -> None:
    """A hostfile that is named can be read."""
    if args.hostfile is not None and not (path := Path(args.hostfile)).is_file():
        is_other = "this is a folder" if path.is_dir() else "this is a pipe or a device"
        state = is_other if path.exists() else "this file does not exist"
        raise Conflict(("hostfile",), f"{state}; correct the path, or remove the key to use this machine only")


def check_include_or_exclude(args: Draft) -> None:
    """Hosts are chosen by naming those to use or those not to."""
    if args.include and args.exclude:
        raise Conflict(("include", "exclude"), "only one of the two can be given; remove exclude")


WITHOUT_PROGRAM = ("local", "torchrun")
"""Launchers that run nothing but our agent."""


def check_launcher_args(args: Draft) -> None:
    """Free arguments are words of a command line, and go to a launcher that runs a program."""
    given = args.launcher_args
    if isinstance(given, dict):
        for name in given:
            if name not in LAUNCHERS:
                raise Conflict(
                    ("launcher_args",),
                    f'there is no launcher "{name}"; choose among {", ".join(LAUNCHERS.names)}{did_you_mean(name, LAUNCHERS.names)}',
                )
    elif given and args.launcher in WITHOUT_PROGRAM:
        raise Conflict(
            ("launcher_args", "launcher"),
            f"launcher {args.launcher} runs no program that could take them; remove launcher_args, or write for which launcher they are, such as "
            "launcher_args: {slurm: --qos=high}",
        )
    for words in given.values() if isinstance(given, dict) else (given,):
        if isinstance(words, bool | dict) or words is None:
            raise Conflict(
                ("launcher_args",),
                f"{quote(words)} is no text with arguments; write one, such as {{slurm: --qos=high}}",
            )
        try:
            shlex.split(words) if isinstance(words, str) else words
        except ValueError as error:
            raise Conflict(
                ("launcher_args",), f"no shell could read this ({str(error).lower()}); close the quotation"
            ) from None
