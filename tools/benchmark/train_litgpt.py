"""Steps of litgpt: its model and its `pretrain` loop under Fabric."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from litgpt.utils import chunked_cross_entropy, get_default_supported_precision
from torch import Tensor

from tools.benchmark.generate_ways import litgpt_model
from tools.benchmark.train_job import Job
from tools.benchmark.train_peer import ADAMW, IGNORED, MAXIMUM_NORM, targets_of


def build(job: Job) -> Callable[[Tensor], Tensor]:
    """Its step. Settings: `compile` the whole model, `chunk` of the cross entropy in tokens (0: whole), `fused` AdamW (else on GPUs alone)."""
    fabric = lightning.Fabric(
        devices=1, accelerator=job.device, precision=get_default_supported_precision(training=True)
    )
    model: Any = litgpt_model(job.case.architecture, Path(job.directory))
    model.max_seq_length = job.case.length
    model = fabric.setup(torch.compile(model) if job.settings["compile"] else model)
    fused = job.settings.get("fused", job.device == "cuda")
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=job.lr, **ADAMW, fused=fused))

    def step(tokens: Tensor) -> Tensor:
        tokens = fabric.to_device(tokens)
        logits = model(tokens)
        loss: Tensor = chunked_cross_entropy(logits, targets_of(tokens), job.settings["chunk"], IGNORED)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=MAXIMUM_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step
