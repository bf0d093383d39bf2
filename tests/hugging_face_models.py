"""Models of Hugging Face transformers for tests: with random weights, on disk and in memory, and what transformers computes of them.

transformers is imported when it is first needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tests.hugging_face_configurations import MODELS as MODELS

LENGTH = 24
"""Tokens to test with: more than any window below and the original context of scaled rotations, and fewer than the models have positions."""


def write_model(name: str, directory: Path, seed: int = 0) -> Path:
    """`directory`, with `config.json` and `model.safetensors` of a model of MODELS as transformers saves them; every parameter is random."""
    build_model(name, seed=seed).save_pretrained(directory)
    return directory


def build_model(name: str, *, seed: int = 0, changes: Mapping[str, Any] | None = None) -> Any:
    """A model of MODELS in the memory of transformers, with changes of its `config.json`."""
    transformers = _transformers()
    model = MODELS[name]
    # The defaults of some models are numbers of tokens that there are not here.
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    # transformers writes into what it is given.
    config = transformers.AutoConfig.for_model(**deepcopy({**tokens, **model.config, **(changes or {})}))
    config._attn_implementation = "eager"
    with torch.random.fork_rng():
        module = getattr(transformers, model.architecture)(config).float().eval()
    randomise(module, seed=seed)
    return module


def config_of(directory: Path) -> dict[str, Any]:
    """`config.json` of a directory."""
    config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return config


def logits_of(directory: Path, tokens: Tensor) -> Tensor:
    """What transformers computes in fp32 for tokens [b, s]: logits [b, s, v]; of a classifier the one of the last token, [b, labels]."""
    (architecture,) = config_of(directory)["architectures"]
    build = getattr(_transformers(), architecture)
    return compute(build.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval(), tokens)


def compute(module: Any, tokens: Tensor) -> Tensor:
    """`logits_of` a model in memory."""
    with torch.inference_mode():
        # Row by row: a classifier looks for padding where there are several.
        return torch.cat([module(row[None], use_cache=False).logits for row in tokens])


def random_tokens(name: str, *, rows: int = 2, length: int = LENGTH, seed: int = 1) -> Tensor:
    """Tokens [rows, length] of the vocabulary of a model."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(MODELS[name].config["vocab_size"], (rows, length), generator=generator)


def randomise(module: nn.Module, *, seed: int) -> None:
    """Random values for all parameters, such that none can be dropped or exchanged unseen; gains of norms are around 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                is_gain = "Norm" in type(owner).__name__ and name == "weight"
                parameter.normal_(mean=1.0 if is_gain else 0.0, std=0.2, generator=generator)


@cache
def _transformers() -> ModuleType:
    """The package, without its bars and remarks."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
