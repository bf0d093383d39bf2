"""What the programs beside ours have in common in tools/benchmark/train.py: the loop around their models, as their own trainers have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

IGNORED = -100
"""A target without a loss, in all of them."""

ADAMW: dict[str, Any] = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
MAXIMUM_NORM = 1.0


def targets_of(tokens: Tensor) -> Tensor:
    """The next token at every place, none at the last of each row. [b, s] -> [b, s]."""
    targets = tokens.roll(-1, dims=1)
    targets[:, -1] = IGNORED
    return targets


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """precision: `bf16` (mixed, by autocast) or `fp32`."""
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()


def plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[Tensor], Tensor], *, device: str
) -> Callable[[Tensor], Tensor]:
    """Forward and backward pass, clipping, update. loss_of: tokens on the device -> a scalar."""

    def step(tokens: Tensor) -> Tensor:
        loss = loss_of(tokens.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAXIMUM_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def weights_in(directory: str) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a model of transformers, in fp32."""
    from safetensors.torch import load_file

    for path in sorted(Path(directory).glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            yield name, tensor.float()
