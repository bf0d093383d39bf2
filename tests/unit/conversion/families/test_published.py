"""Models as they are published: their `config.json` is understood, and the model that it describes has their number of parameters."""

from __future__ import annotations

import math

import pytest

from megatron.conversion.mapping.choose import family_of
from tests.unit.conversion.families.published import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_understood(name: str) -> None:
    published = PUBLISHED[name]
    family = family_of(published.config)
    architecture = family.architecture(published.config)
    assert {key: getattr(architecture, key) for key in published.ours} == published.ours
    rules = family.rules(architecture)
    theirs = [shape for rule in rules for shape in rule.their_shapes.values()]
    assert sum(math.prod(shape) for shape in theirs) == published.parameters
    assert sum(math.prod(rule.shape) for rule in rules) == published.parameters
    assert family.architecture(family.config(architecture)) == architecture
