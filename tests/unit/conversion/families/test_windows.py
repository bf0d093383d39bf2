"""Windows that `config.json` gives layer by layer: all or none, as many entries as layers, and models without one that transformers can run."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch

from megatron.errors import CheckpointError
from tests.hugging_face_configurations import MODELS
from tests.hugging_face_models import build_model, compute, random_tokens
from tests.unit.conversion.families.translated import TOLERANCE, family_of_model, our_logits, ours_of

SLIDING, FULL = "sliding_attention", "full_attention"


def config_of_model(name: str, **changes: Any) -> dict[str, Any]:
    return {**deepcopy(MODELS[name].config), "architectures": [MODELS[name].architecture], **changes}


@pytest.mark.parametrize("name", ["ministral", "qwen2-window"])
@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        ([], "layer_types is of 0 layers, and there are 2"),
        ([SLIDING], "layer_types is of 1 layers, and there are 2"),
        ([SLIDING, FULL], "some layers have a sliding window and others have none"),
        ([SLIDING, "chunked_attention"], "layer_types has chunked_attention"),
    ],
)
def test_kinds_of_layers_that_cannot_be_expressed_are_refused(name: str, kinds: list[str], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        family_of_model(name).architecture(config_of_model(name, layer_types=kinds))


@pytest.mark.parametrize("name", ["ministral", "qwen2-window"])
def test_a_model_without_windows_is_written_such_that_transformers_runs_it(name: str) -> None:
    family = family_of_model(name)
    architecture = replace(family.architecture(config_of_model(name)), sliding_window_width=None)
    config = family.config(architecture)
    module = build_model(name, changes={**config, "layer_types": config.get("layer_types")})
    tokens = random_tokens(name)
    ours = our_logits(architecture, ours_of(family, architecture, module.state_dict()), tokens)
    torch.testing.assert_close(ours, compute(module, tokens), rtol=0, atol=TOLERANCE)
