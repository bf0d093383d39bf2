"""The end of a step: whether it counts, its norm, and one pass of the optimizer with the clipping folded in.

The optimizer divides gradients by a scale and leaves everything alone where it is told that they are not finite; both are tensors on the
device, so nobody waits for the loss or the norm before the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from megatron.engine.native.bucket import Bucket
from megatron.engine.squares import sum_of_squares


@dataclass(frozen=True)
class Totals:
    """Of a step, over all processes: fp64 scalars on the device.

    loss, weight: sums over the global batch; squares: of the gradient of the loss sum.
    """

    loss: Tensor
    weight: Tensor
    squares: Tensor

    @property
    def divisor(self) -> Tensor:
        """What the sums are divided by; 1 where nothing counts."""
        return torch.where(self.weight == 0, torch.ones_like(self.weight), self.weight)

    @property
    def mean_loss(self) -> Tensor:
        return self.loss / self.divisor

    @property
    def norm(self) -> Tensor:
        """Of the gradient of the mean loss, before clipping."""
        return self.squares.sqrt() / self.divisor

    @property
    def is_finite(self) -> Tensor:
        return torch.isfinite(self.loss) & torch.isfinite(self.squares)

    def on_host(self) -> tuple[float, float, float, bool]:
        """(mean loss, norm, weight, whether both are finite); waits for the device, once."""
        values = torch.stack([self.mean_loss, self.norm, self.weight, self.is_finite.to(torch.float64)]).tolist()
        return values[0], values[1], values[2], bool(values[3])


def own_squares(buckets: Sequence[Bucket], device: torch.device) -> Tensor:
    """The squares of the gradients that this rank counts."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    for bucket in buckets:
        for run in bucket.counted():
            total += sum_of_squares(run.of(bucket.gradients))
    return total


class Optimizer:
    """torch's optimizer of the parameters of `buckets`, made to update their fp32 weights instead."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, groups: Sequence[Sequence[Bucket]], *, clipping: float
    ) -> None:
        """groups: the buckets of each of the optimizer's parameter groups; clipping: the largest norm, 0 = any."""
        self._optimizer: Any = optimizer
        self._clipping = clipping
        self.masters = [bucket.master for buckets in groups for bucket in buckets]
        for options, buckets in zip(optimizer.param_groups, groups, strict=True):
            options["params"] = [bucket.master for bucket in buckets]
        self._materialize()

    def set_learning_rate(self, lr: float) -> None:
        """Of the next update."""
        for options in self._optimizer.param_groups:
            options["lr"] = lr

    def step(self, totals: Totals) -> None:
        """Update by the gradients of the loss sum as if by clipped ones of the mean loss; nothing at all where they are not finite."""
        scale = totals.divisor
        if self._clipping:
            # Its inverse is what the norm is brought down to; the small number is the same as in torch and DeepSpeed.
            scale = scale * ((totals.norm + 1e-6) / self._clipping).clamp(min=1.0)
        self._optimizer.grad_scale = scale.to(torch.float32)
        self._optimizer.found_inf = (~totals.is_finite).to(torch.float32)
        self._optimizer.step()

    def moments(self, master: Tensor) -> dict[str, Tensor]:
        """The state tensors of the shape of `master`, by name."""
        state = self._optimizer.state[master]
        return {key: value for key, value in state.items() if torch.is_tensor(value) and value.shape == master.shape}

    @property
    def count(self) -> int:
        """Updates so far."""
        return int(self._counts()[0]) if self.masters else 0

    def set_count(self, count: float) -> None:
        """As if there had been so many."""
        for each in self._counts():
            each.fill_(count)

    def _counts(self) -> list[Tensor]:
        return [self._optimizer.state[master]["step"] for master in self.masters]

    def _materialize(self) -> None:
        """Create the state, all zero: the optimizer itself knows best which it has, and takes a step by gradients of zero."""
        options = [dict(each) for each in self._optimizer.param_groups]
        for each in self._optimizer.param_groups:
            each.update(lr=0.0, weight_decay=0.0)
        self._optimizer.step()
        for each, own in zip(self._optimizer.param_groups, options, strict=True):
            each.update(own)
        for master in self.masters:
            for value in self._optimizer.state[master].values():
                value.zero_()
