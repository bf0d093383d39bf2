"""Steps of ours: the engine that a configuration asks for, with the weights of `load: hf:`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from megatron.conversion.loading import load_into_engine
from megatron.data.batch import Batch
from megatron.engine.build import build_engine
from megatron.errors import NeoXError
from megatron.initialize import join_world
from megatron.model.gpt import build_layer_specs
from megatron.neox_arguments import NeoXArgs
from megatron.training.objectives.next_token import NextTokenObjective
from tools.benchmark.train_job import Job

COMMON: dict[str, Any] = {
    "precision": "bfloat16",
    "optimizer": {"type": "AdamW", "params": {"betas": [0.9, 0.95], "eps": 1e-8}},
    "weight_decay": 0.1,
    "gradient_clipping": 1.0,
    "hidden_dropout": 0,
    "attention_dropout": 0,
}


def build(job: Job) -> Callable[[Tensor], float]:
    """Its step. Settings are keys; those that this version refuses are left out, and noted."""
    os.environ.setdefault("MASTER_PORT", "0")
    keys = {**COMMON, **job.case.keys(), "lr": job.lr, "load": f"hf:{job.directory}", "lr_decay_style": "constant"}
    args, refused = accepted(keys, job.settings)
    job.notes.extend(f"without {name}" for name in refused)
    world, rows = join_world(args), job.case.architecture.vocab_size
    engine = build_engine(
        args,
        specs=build_layer_specs(args, vocab_size=rows, padded_vocab_size=rows),
        objective=NextTokenObjective(group=world.groups.tensor, vocab_size=rows),
        groups=world.groups,
        device=world.device,
    )
    load_into_engine(args, engine, vocab_size=rows)
    return lambda tokens: engine.train_step([batch_of(tokens)], lr=job.lr).loss


def accepted(keys: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[NeoXArgs, list[str]]:
    """The configuration with all keys of `wanted` that it goes with, and the names of the others."""
    taken, refused = dict(keys), []
    args = NeoXArgs.from_dict(taken)
    for name, value in wanted.items():
        try:
            args = NeoXArgs.from_dict({**taken, name: value})
        except NeoXError:
            refused.append(name)
        else:
            taken[name] = value
    return args, refused


def batch_of(tokens: Tensor) -> Batch:
    """Each token but the last of a row predicts the next one. tokens: int64 [b, s]."""
    mask = torch.ones(tokens.shape)
    mask[:, -1] = 0
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape).contiguous()
    return Batch(tokens, tokens.roll(-1, dims=1), mask, positions)
