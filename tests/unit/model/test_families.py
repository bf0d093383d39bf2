"""Tiny models of published families give the logits of Hugging Face's classes.

Those were recorded with transformers 5.23.0 in fp64 (whose norms and rotations are fp32 even then), by loading `Family.weights()` into
`{name}ForCausalLM({name}Config(**HUGGING_FACE, **theirs))` and running it on TOKENS.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.model.families import FAMILIES, TOKENS, Family


def last_logits(family: Family, **changes: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = family.model(**changes)(TOKENS, torch.arange(TOKENS.shape[1])[None])
    return logits[0, -1]


@pytest.mark.parametrize("core", ["global", "flash"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: " ".join((family.name, *family.ours)))
def test_logits_are_those_of_hugging_face(family: Family, core: str) -> None:
    found = last_logits(family, attention_config=[[[core], "all"]])
    torch.testing.assert_close(found, family.logits, atol=1e-5, rtol=0)


NEAR_MISSES = [
    ("rope_scaling", {"rope_scaling": None}),
    ("rope_scaling", {"rope_scaling": {"type": "linear", "factor": 4}}),
    ("sliding_window_width", {"sliding_window_width": 8}),
    ("sliding_window_width", {"sliding_window_width": 6}),
]


@pytest.mark.parametrize(("key", "changes"), NEAR_MISSES)
def test_a_setting_that_is_nearly_right_gives_other_logits(key: str, changes: dict[str, Any]) -> None:
    for family in (family for family in FAMILIES if key in family.ours):
        difference = last_logits(family, **changes) - family.logits
        assert difference.abs().max() > 0.01
