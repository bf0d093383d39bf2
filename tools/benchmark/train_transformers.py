"""Steps of Hugging Face transformers: the loop of its Trainer, with the optimizer that its arguments name by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainingArguments

from tools.benchmark.train_job import Job
from tools.benchmark.train_peer import ADAMW, autocast, plain_step


def build(job: Job) -> Callable[[Tensor], Tensor]:
    """Its step. Settings: `precision` bf16 or fp32, `compile` the whole model."""
    model: Any = AutoModelForCausalLM.from_pretrained(job.directory, dtype=torch.float32)
    model.to(job.device).train()
    model.config.use_cache = False
    called = torch.compile(model) if job.settings.get("compile") else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.lr, **ADAMW, fused=is_fused())
    precision = job.settings["precision"]

    def loss_of(tokens: Tensor) -> Tensor:
        with autocast(precision, job.device):
            loss: Tensor = called(input_ids=tokens, labels=tokens).loss
        return loss

    return plain_step(model, optimizer, loss_of, device=job.device)


def is_fused() -> bool:
    """Whether the Trainer's default optimizer is torch's fused one."""
    default = next(field.default for field in fields(TrainingArguments) if field.name == "optim")
    return str(default).rpartition(".")[2].lower() == "adamw_torch_fused"
