"""Our model with the weights of a directory of Hugging Face transformers, put together by nothing but the tables of its family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from megatron.components import FAMILIES
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.shapes import model_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.shard import shard_of
from tests.hugging_face_configurations import MODELS

TOLERANCE = 1e-5
"""Of logits around 4, in fp32: sums are in another order."""


def family_of_model(name: str) -> Family:
    family: Family = FAMILIES.load(MODELS[name].family)
    return family


def tensors_of(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model.safetensors")


def ours_of(family: Family, architecture: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors as ours by name."""
    return {
        rule.ours: rule.packing.pack([tensors[name] for name in rule.theirs]) for rule in family.rules(architecture)
    }


def our_logits(architecture: Architecture, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Logits [b, s, v] of our model, of a reward model the rewards of the last tokens [b, 1]."""
    model = SequentialModel(model_specs(architecture), BuildContext(), seed=None).eval()
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.copy_(weights[shard_of(parameter).name])
        output: Tensor = model(tokens, torch.arange(tokens.shape[1]).expand(tokens.shape))
    return output[:, -1:] if architecture.train_impl == "rm" else output
