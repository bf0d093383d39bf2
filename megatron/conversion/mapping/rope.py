"""Rotary settings of `config.json`: the base, the part of a head that turns, and how rotations are slowed down for long contexts.

transformers 5 writes all of them in `rope_parameters`; before, there were `rope_theta`, `partial_rotary_factor` (in GPT-NeoX `rotary_pct` and
`rotary_emb_base`) and `rope_scaling`. All are read; written are the keys of before, which every version and other programs read. Keys that
say the same must agree, as each version of transformers believes another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.rope_scaling import KEYS_BESIDE, check_agreement, first_given, read_scaling
from megatron.conversion.mapping.settings import Config, Untranslatable

_TYPES = ("linear", "llama3", "yarn")


@dataclass(frozen=True)
class Rotary:
    """base, fraction: the keys beside `rope_scaling` (fraction: "" where all of a head turns); default_*: where they are missing;
    scalings: the types of scaling that transformers has for these models."""

    base: str = "rope_theta"
    fraction: str = ""
    default_base: float = 10000.0
    default_fraction: float = 1.0
    scalings: tuple[str, ...] = _TYPES

    @property
    def keys(self) -> tuple[str, ...]:
        return (
            "rope_parameters",
            "rope_scaling",
            "rope_theta",
            "partial_rotary_factor",
            *KEYS_BESIDE,
            self.base,
            *([self.fraction] if self.fraction else []),
        )

    def to_theirs(self, architecture: Architecture) -> dict[str, Any]:
        if architecture.pos_emb != "rotary":
            raise Untranslatable(f"it has no pos_emb {architecture.pos_emb!r}, only 'rotary'")
        if not self.fraction and architecture.rotary_pct != 1:
            raise Untranslatable(f"rotary_pct is {architecture.rotary_pct}, and all of each head turns there (1.0)")
        config: dict[str, Any] = {self.base: float(architecture.rotary_emb_base)}
        if self.fraction:
            config[self.fraction] = architecture.rotary_pct
        scaling = architecture.rope_scaling
        if scaling is not None:
            if scaling["type"] not in self.scalings:
                raise Untranslatable(f"rope_scaling of type {scaling['type']!r} is unknown there")
            keys = {key: value for key, value in scaling.items() if key != "type"}
            # Versions that know nothing but linear scaling call it `type`, and accept no other key beside `factor`.
            name = "type" if scaling["type"] == "linear" else "rope_type"
            config["rope_scaling"] = {name: scaling["type"], **keys}
        return config

    def to_ours(self, config: Config) -> dict[str, Any]:
        parameters = _parameters(config)
        if self.fraction in config and config[self.fraction] is None and self.default_fraction != 1:
            raise Untranslatable(
                f"{self.fraction} is null, which transformers takes for {self.default_fraction} or for 1"
            )
        base = first_given(parameters.get("rope_theta"), config.get(self.base), self.default_base)
        fraction = first_given(
            parameters.get("partial_rotary_factor"),
            config.get(self.fraction) if self.fraction else None,
            self.default_fraction,
        )
        check_agreement(config, ("rope_theta", self.base), base)
        check_agreement(config, ("partial_rotary_factor", self.fraction), fraction)
        if not self.fraction and fraction != 1:
            raise Untranslatable(f"partial_rotary_factor is {fraction}, and all of each head turns in these models")
        return {
            "pos_emb": "rotary",
            "rotary_emb_base": int(base) if base == int(base) else base,
            "rotary_pct": fraction,
            "rope_scaling": read_scaling(parameters, config, self.scalings),
        }


def _parameters(config: Config) -> dict[str, Any]:
    """The settings of either form. Raises Untranslatable when there are both and they differ, or settings for each kind of layers."""
    older, newer = (dict(config.get(key) or {}) for key in ("rope_scaling", "rope_parameters"))
    if any(isinstance(value, Mapping) for value in (older | newer).values()):
        raise Untranslatable("rope_parameters differ between kinds of layers, which cannot be expressed here")
    if older and newer and older != newer:
        raise Untranslatable(
            "rope_scaling and rope_parameters are not the same, and versions of transformers differ in which they read"
        )
    return older or newer
