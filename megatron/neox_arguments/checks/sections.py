"""DeepSpeed's own sections: only keys that it knows, none that is also ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron.errors import ConfigError
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.sections import unknown_section_keys

if TYPE_CHECKING:
    from megatron.neox_arguments.draft import Draft


def check_section_keys(args: Draft) -> None:
    """DeepSpeed's sections hold only keys that it knows."""
    problems = []
    for section in ("fp16", "bf16", "zero_optimization", "data_types", "optimizer"):
        if section in args.given and section not in args.broken:
            unknown = unknown_section_keys(section, args.source.values[section])
            problems += [args.describe((path,), reason) for path, reason in unknown]
    if problems:
        raise ConfigError(problems)


def check_extra_deepspeed_keys(args: Draft) -> None:
    """A DeepSpeed key that is also one of ours is written as ours."""
    for key in args.deepspeed_extra_args or {}:
        if key in args.values and key != "comms_logger":
            raise Conflict(
                (f"deepspeed_extra_args.{key}",), f'"{key}" is a key of its own; move it out of deepspeed_extra_args'
            )
