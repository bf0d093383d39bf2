"""How rotary frequencies change for contexts longer than a model was first trained with: one pure function a type.

A function takes the frequencies of the rotated pairs, in radians a token and falling (`base^(-2 i / width)` for pair i), and the base;
the keys that `rope_scaling` may hold beside `type` are its keyword parameters, those without a default must be given. Adding a type is
adding a function here and a line in `megatron/components.py`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron.components import ROPE_SCALINGS


@dataclass(frozen=True)
class Rotation:
    """What a rotary scheme turns by: frequencies in radians a token, and a factor of rotated queries and keys."""

    frequencies: tuple[float, ...]
    magnitude: float = 1.0


Scaling = Callable[..., Rotation]


REQUIRED = inspect.Parameter.empty
"""What `defaults_of` has for a key that must be given."""


def scale(frequencies: Sequence[float], base: float, section: Mapping[str, Any]) -> Rotation:
    """The rotation that a checked `rope_scaling` section asks for."""
    function: Scaling = ROPE_SCALINGS.load(section["type"])
    return function(frequencies, base, **{key: section[key] for key in defaults_of(section["type"]) if key in section})


def defaults_of(type_name: str) -> dict[str, Any]:
    """The keys of a type, beside `type`, with their defaults."""
    parameters = inspect.signature(ROPE_SCALINGS.load(type_name)).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def linear(frequencies: Sequence[float], base: float, *, factor: float) -> Rotation:
    """All slower by the factor, as if positions were closer together (Chen et al., Position Interpolation, 2023)."""
    return Rotation(tuple(frequency / factor for frequency in frequencies))


def llama3(
    frequencies: Sequence[float],
    base: float,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: float,
) -> Rotation:
    """Llama 3.1: what turns more than high_freq_factor times in the original context stays, less than low_freq_factor times is slowed
    down by the factor, and in between the two are mixed."""

    def slow_down(frequency: float) -> float:
        turns = original_max_position_embeddings * frequency / (2 * math.pi)
        kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
        return _mix(frequency, factor, min(max(kept, 0.0), 1.0))

    return Rotation(tuple(map(slow_down, frequencies)))


def yarn(
    frequencies: Sequence[float],
    base: float,
    *,
    factor: float,
    original_max_position_embeddings: float,
    beta_fast: float = 32,
    beta_slow: float = 1,
    attention_factor: float | None = None,
) -> Rotation:
    """YaRN (Peng et al., 2023): pairs before the one that turns beta_fast times in the original context stay, those behind the one that
    turns beta_slow times are slowed down by the factor, with a linear ramp between.

    attention_factor: of the rotated queries and keys, default 0.1 ln(factor) + 1 (the paper's sqrt(1/t)).
    """

    def pair_that_turns(times: float) -> float:
        return len(frequencies) * math.log(original_max_position_embeddings / (2 * math.pi * times)) / math.log(base)

    # Whole pairs, at least the first and at most as many as there are channels: so Hugging Face and the authors' own code round.
    first = max(math.floor(pair_that_turns(beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(beta_slow)), 2 * len(frequencies) - 1)
    length = last - first or 0.001
    scaled = (
        _mix(frequency, factor, 1 - min(max((pair - first) / length, 0.0), 1.0))
        for pair, frequency in enumerate(frequencies)
    )
    return Rotation(tuple(scaled), 0.1 * math.log(factor) + 1 if attention_factor is None else attention_factor)


def _mix(frequency: float, factor: float, kept: float) -> float:
    """The frequency, of which a part `kept` stays and the rest is slowed down."""
    return kept * frequency + (1 - kept) * frequency / factor
