"""Which family a model belongs to: by its `config.json`, or by what a family would have to express.

The menu FAMILIES is in order of preference: a model is exported as the first family that can express it, so that families which more
programs read, and which say less about a model, come before those that say more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron.components import FAMILIES
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, Inexpressible
from megatron.conversion.mapping.refused import REFUSED
from megatron.errors import CheckpointError
from megatron.registry import did_you_mean

AUTO = "auto"
_NEAREST = 3


def families() -> list[Family]:
    """All families in order of preference."""
    return [FAMILIES.load(name) for name in FAMILIES]


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that a `config.json` names. Raises CheckpointError when there is none or it cannot be expressed here."""
    model_type = config.get("model_type")
    if model_type is None:
        raise CheckpointError(
            'config.json has no "model_type", so the family of this model is unknown: it must say e.g. "llama"'
        )
    if not isinstance(model_type, str):
        raise CheckpointError(f'the model_type of config.json is {model_type!r}, and must be one text, e.g. "llama"')
    by_type = {family.model_type: family for family in families()}
    if model_type in by_type:
        return by_type[model_type]
    if model_type in REFUSED:
        raise CheckpointError(f"a model of type {model_type} cannot be expressed: {REFUSED[model_type]}")
    raise CheckpointError(
        f'the model_type "{model_type}" of config.json is unknown; known are {", ".join(by_type)}{did_you_mean(str(model_type), list(by_type))}'
    )


def family_for(architecture: Architecture, wanted: str = AUTO) -> Family:
    """The family to write a model as: the one called `wanted`, or the first that can express it.

    Raises CheckpointError naming what the wanted family, or each of those that come nearest, cannot express.
    """
    if wanted != AUTO:
        family: Family = FAMILIES.load(wanted)
        family.config(architecture)
        return family
    lacking: list[tuple[Family, tuple[str, ...]]] = []
    for family in families():
        try:
            family.config(architecture)
        except Inexpressible as problem:
            lacking.append((family, problem.problems))
        else:
            return family
    nearest = sorted(lacking, key=lambda item: len(item[1]))[:_NEAREST]
    reasons = "".join(f"\n  {family.name}: {'; '.join(problems)}" for family, problems in nearest)
    raise CheckpointError(
        f"no family of models in Hugging Face transformers can express this model. The nearest:{reasons}"
    )
