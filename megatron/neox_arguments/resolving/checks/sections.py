"""Sections: only keys and values that they have, and none in DeepSpeed's extra arguments that is also ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from megatron.components import OPTIMIZERS
from megatron.errors import ConfigError
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.keys.sections import CHECKED, CURRICULUM, unknown_section_keys, wrong_section_values
from megatron.neox_arguments.keys.types import read_numbers_within

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_sections(args: Draft) -> None:
    """Sections hold only keys that they have, with values that these take. Comes before anything is derived from them."""
    problems = []
    for section in (*CHECKED, *CURRICULUM, "loss_spike", "optimizer", "optimizer.params"):
        written, key = args.user_value(section), section.partition(".")[0]
        if key not in args.given or key in args.broken or not isinstance(written, Mapping):
            continue
        if section != "optimizer.params" or _has_known_options(args):
            problems += [args.describe_key(path, reason) for path, reason in unknown_section_keys(section, written)]
        wrong = list(wrong_section_values(section, read_numbers_within(written)))
        problems += [args.describe((path,), reason) for path, reason in wrong]
        args.broken.update([key] if wrong else [])
    if problems:
        raise ConfigError(problems)


def _has_known_options(args: Draft) -> bool:
    """Whether the optimizer is one that is built; others have options that are not listed yet."""
    name = args.user_value("optimizer.type") or args.user_value("optimizer_type") or "adam"
    return str(name).lower() in OPTIMIZERS


def check_extra_deepspeed_keys(args: Draft) -> None:
    """A DeepSpeed key that is also one of ours is written as ours."""
    for key in args.deepspeed_extra_args or {}:
        if key in args.values and key != "comms_logger":
            raise Conflict(
                (f"deepspeed_extra_args.{key}",), f'"{key}" is a key of its own; move it out of deepspeed_extra_args'
            )
