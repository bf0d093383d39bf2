"""The section `rope_scaling`: a known type, its keys and no others, and numbers for which the type's formula means something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from megatron.components import ROPE_SCALINGS
from megatron.errors import ConfigError
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.rope_scaling import REQUIRED, defaults_of
from megatron.registry import did_you_mean

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

RISING = (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast"))
"""Pairs of keys between which a formula interpolates: the first must be the smaller one."""


def check_rope_scaling(args: Draft) -> None:
    """The section is complete and holds nothing else."""
    section = args.rope_scaling
    if section is None:
        return
    _check_type(section)
    problems = [args.describe_key(f"rope_scaling.{key}", reason) for key, reason in _unknown_keys(section)]
    found = [*_missing_keys(section), *_wrong_numbers(section)]
    problems += [args.describe((f"rope_scaling.{key}",), reason) for key, reason in found]
    if problems:
        raise ConfigError(problems)
    values = {**defaults_of(section["type"]), **section}
    for low, high in RISING:
        if low in values and values[low] >= values[high]:
            given = [f"rope_scaling.{key}" for key in (low, high) if key in section]
            raise Conflict(
                given,
                f"{low} ({values[low]:g}) must be smaller than {high} ({values[high]:g}); lower {low} or raise {high}",
            )


def check_scaling_has_rotations(args: Draft) -> None:
    """Only rotary positions can be scaled, and YaRN only those whose wavelengths differ."""
    if args.rope_scaling is None:
        return
    if args.pos_emb != "rotary":
        raise Conflict(("rope_scaling", "pos_emb"), "there are no rotations to scale; set pos_emb to rotary")
    if args.rope_scaling.get("type") == "yarn" and args.rotary_emb_base == 1:
        raise Conflict(
            ("rope_scaling.type", "rotary_emb_base"), "yarn needs a rotary_emb_base above 1; set it to 10000"
        )


def _check_type(section: Mapping[str, Any]) -> None:
    names = ROPE_SCALINGS.names
    choice = f"choose one of {', '.join(names)}"
    if "type" not in section:
        hint = " (Hugging Face calls it rope_type)" if "rope_type" in section else ""
        raise Conflict(("rope_scaling",), f'it needs the key "type"{hint}; {choice}')
    if section["type"] not in names:
        hint = did_you_mean(section["type"], names) if isinstance(section["type"], str) else ""
        raise Conflict(("rope_scaling.type",), f"{choice}{hint}")


def _unknown_keys(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, reason) of each key that the type does not have."""
    defaults = defaults_of(section["type"])
    for key in section:
        if key not in ("type", *defaults):
            hint = did_you_mean(key, list(defaults)) or f"; it has {', '.join(defaults)}, remove this one"
            yield key, f': type "{section["type"]}" has no such key{hint}'


def _missing_keys(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the type needs and the section lacks, told at `type`; without what is there under a misspelt name."""
    defaults = defaults_of(section["type"])
    misspelt = {near for key in section if key not in defaults for near in get_close_matches(key, list(defaults), n=1)}
    needed = [key for key, default in defaults.items() if default is REQUIRED and key not in section]
    missing = [key for key in needed if key not in misspelt]
    if missing:
        yield "type", f"it also needs {', '.join(missing)}; add what is missing"


def _wrong_numbers(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, reason) of each value that is no number above 0; a factor is at least 1, positions are whole."""
    for key in defaults_of(section["type"]):
        if key not in section:
            continue
        value = section[key]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if key == "factor" and not (is_number and value >= 1):
            yield key, "expected a number of at least 1, how many times longer the context becomes; set it to 1 or more"
        elif key == "original_max_position_embeddings" and not (is_number and value >= 1 and value == int(value)):
            yield key, "expected a whole number above 0; set it to the context that the model was first trained with"
        elif not (is_number and value > 0):
            yield key, "expected a number above 0; raise it"
