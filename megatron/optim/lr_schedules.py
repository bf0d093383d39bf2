"""Learning rates as pure functions of the iteration: there is no scheduler object, and so nothing to save or to forget.

With peak lr, D decay steps and W warm-up steps (W = warmup * D, not rounded), the step taken after n completed iterations uses

    n <= W:       lr * max(1, n) / W
    afterwards:   curve(t / T), t = n - W, T = D - W, never below min_lr, and after D what it was at D.

As in GPT-NeoX, the first two steps (n = 0 and n = 1) have the same rate, and `min_lr` does not lift the warm-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from megatron.components import LR_SCHEDULES
from megatron.neox_arguments import NeoXArgs


@dataclass(frozen=True)
class LearningRates:
    """All that learning rates depend on, under the names of the keys; `lr_decay_iters` is D, wherever it comes from."""

    lr: float
    lr_decay_style: str
    lr_decay_iters: int
    min_lr: float
    warmup: float

    @classmethod
    def of(cls, args: NeoXArgs) -> LearningRates:
        """Those of a configuration. Raises ConfigError while train_epochs are not counted in iterations."""
        return cls(args.lr, args.lr_decay_style, args.lr_decay_steps, args.min_lr, args.warmup)

    def after(self, iteration: int) -> float:
        """The learning rate of the step that follows `iteration` completed iterations (0 for the first step of a run)."""
        decay_steps, warmup_steps = self.lr_decay_iters, self.warmup * self.lr_decay_iters
        if warmup_steps > 0 and iteration <= warmup_steps:
            return self.lr * min(1.0, max(1, iteration) / warmup_steps)
        span = decay_steps - warmup_steps
        progress = min((iteration - warmup_steps) / span, 1.0) if span > 0 else 1.0
        curve = LR_SCHEDULES.load(self.lr_decay_style)
        return max(float(curve(progress, lr=self.lr, min_lr=self.min_lr)), self.min_lr)


def learning_rate(args: NeoXArgs, iteration: int) -> float:
    """The learning rate of the step that follows `iteration` completed iterations."""
    return LearningRates.of(args).after(iteration)


def constant(progress: float, *, lr: float, min_lr: float) -> float:
    """The peak rate throughout."""
    return lr


def linear(progress: float, *, lr: float, min_lr: float) -> float:
    """A straight line from the peak to zero, cut off at `min_lr`."""
    return lr * (1.0 - progress)


def cosine(progress: float, *, lr: float, min_lr: float) -> float:
    """Half a cosine from the peak to `min_lr`."""
    return min_lr + (lr - min_lr) / 2.0 * (1.0 + math.cos(math.pi * progress))


def exponential(progress: float, *, lr: float, min_lr: float) -> float:
    """Exponential decay to half of the peak; 0.693 stands for ln 2 as in GPT-NeoX."""
    return lr * math.exp(-0.693 * progress)
