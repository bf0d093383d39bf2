"""How a `config.json` slows rotations down, as our section `rope_scaling`: the keys of its type and no others, and numbers that mean something."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from megatron.conversion.mapping.settings import Config, Untranslatable
from megatron.neox_arguments.resolving.checks.rope_scaling import RISING
from megatron.neox_arguments.rope_scaling import REQUIRED, defaults_of

_UNSCALED = (None, "default")
_BESIDE = {"type", "rope_type", "rope_theta", "partial_rotary_factor"}
_LENGTH = "original_max_position_embeddings"
KEYS_BESIDE = (_LENGTH,)
"""Keys of `config.json` that say a part of the section outside of it."""

# Said by some files beside any type; transformers does not look at them there.
_WITHOUT_EFFECT = {_LENGTH, "finetuned"}


def read_scaling(parameters: Config, config: Config, types: tuple[str, ...]) -> dict[str, Any] | None:
    """Our section, or None where nothing is scaled. parameters: the rotary settings of `config`; types: those that these models can have.

    Raises Untranslatable for another type, keys or numbers that cannot be expressed.
    """
    kind = first_given(parameters.get("rope_type"), parameters.get("type"))
    if parameters.get("type") not in (None, kind):
        raise Untranslatable(f"rope_scaling has the rope_type {kind!r} and the type {parameters['type']!r}")
    if kind in _UNSCALED:
        _check_nothing_is_scaled(parameters)
        return None
    if kind not in types:
        others = f"; {', '.join(types)} are" if types else ""
        raise Untranslatable(f"rope_scaling of type {kind!r} is not built here for these models{others}")
    defaults = defaults_of(kind)
    given = {key: value for key, value in parameters.items() if key not in _BESIDE and value is not None}
    length = first_given(given.get(_LENGTH), config.get(_LENGTH), config.get("max_position_embeddings"))
    if _LENGTH in defaults and length is not None:
        given[_LENGTH] = length
        check_agreement(config, (_LENGTH,), length)
    if kind == "yarn":
        given = _yarn(given)
    unknown = sorted(given.keys() - defaults.keys() - _WITHOUT_EFFECT)
    if unknown:
        raise Untranslatable(f"rope_scaling of type {kind!r} has {', '.join(unknown)}, not built here")
    scaling = {key: value for key, value in given.items() if key in defaults}
    _check_numbers(kind, {**defaults, **scaling})
    return {"type": kind, **scaling}


def _check_nothing_is_scaled(parameters: Config) -> None:
    """Raises Untranslatable for settings of a scaling that has no type, which versions of transformers refuse or drop."""
    unread = parameters.keys() - _BESIDE - _WITHOUT_EFFECT
    given = sorted(key for key in unread if parameters[key] is not None and (key, parameters[key]) != ("factor", 1))
    if given:
        raise Untranslatable(f"rope_scaling has {', '.join(given)}, and no type of scaling that reads it")


def _yarn(given: Mapping[str, Any]) -> dict[str, Any]:
    """YaRN without the keys that we lack: a pair of factors of the magnitude, and rounding, which is always on here."""
    kept = dict(given)
    if kept.pop("truncate", True) is not True:
        raise Untranslatable("rope_scaling of type 'yarn' has truncate false, and here the range of pairs is rounded")
    magnitudes = [kept.pop(key, None) for key in ("mscale", "mscale_all_dim")]
    if kept.get("attention_factor") is None and all(magnitudes) and "factor" in kept:
        above, below = (0.1 * magnitude * math.log(kept["factor"]) + 1 for magnitude in magnitudes)
        kept["attention_factor"] = above / below
    return kept


def _check_numbers(kind: str, values: Mapping[str, Any]) -> None:
    """Raises Untranslatable for numbers that are missing or for which the formula of the type means nothing."""
    for key, value in values.items():
        if value is REQUIRED:
            raise Untranslatable(f"rope_scaling of type {kind!r} lacks {key}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and value > 0 and (key != "factor" or value >= 1)):
            raise Untranslatable(
                f"rope_scaling has the {key} {value!r}: it must be a number above 0, and a factor at least 1"
            )
    for low, high in RISING:
        if low in values and values[low] >= values[high]:
            raise Untranslatable(
                f"rope_scaling has the {low} {values[low]}, which must be below {high} ({values[high]})"
            )


def check_agreement(config: Config, keys: tuple[str, ...], value: float) -> None:
    """Raises Untranslatable when one of these keys of `config.json` says another value than the one that was found."""
    for key in keys:
        if config.get(key) not in (None, value):
            raise Untranslatable(f"{key} is {config[key]}, and by another key of config.json it is {value}")


def first_given(*values: Any) -> Any:
    """The first value that is not None."""
    return next((value for value in values if value is not None), None)
