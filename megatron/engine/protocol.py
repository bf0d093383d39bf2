"""What the rest of the framework may assume of a training engine, whatever runs underneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from megatron.data.batch import Batch
from megatron.mpu.groups import ProcessGroups


class Objective(Protocol):
    """What is minimised: the sum of `loss_sum` over the global batch divided by the sum of `weight` over it."""

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        """Summed loss of one micro-batch, a scalar. `logits` [b, s, v/t] are this rank's part of the vocabulary."""
        ...

    def weight(self, batch: Batch) -> Tensor:
        """What the micro-batch counts for (its number of non-masked tokens), a scalar."""
        ...


@dataclass(frozen=True)
class StepResult:
    """One optimizer step, the same values on every rank.

    loss: mean over the non-masked tokens of the global batch; grad_norm: global norm before clipping, None when the step was
    skipped; loss_scale: the fp16 loss scale that the next step will use, 1 in other precisions; skipped: the step was not applied
    because a gradient was not finite.
    """

    loss: float
    grad_norm: float | None
    lr: float
    loss_scale: float
    skipped: bool


@dataclass(frozen=True)
class Piece:
    """A hyper-rectangle of a full tensor held by this process: `tensor` (a view, written in place on load) begins at `offsets`."""

    offsets: tuple[int, ...]
    tensor: Tensor


@dataclass(frozen=True)
class FullTensor:
    """A full tensor under a layout-free name, as the pieces of it that this process owns; none on other processes."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


class Engine(Protocol):
    """Runs a list of layer specs over global batches."""

    groups: ProcessGroups
    reads_data: bool  # whether this rank's stage needs batches (first and last stages); the others are given None

    def train_step(self, micro_batches: Sequence[Batch] | None, *, lr: float) -> StepResult:
        """Forward, backward and one optimizer step over the local micro-batches of a global batch.

        There must be `gradient_accumulation_steps` of them, here and in `evaluate_step` (raises ValueError).
        """
        ...

    def evaluate_step(self, micro_batches: Sequence[Batch] | None) -> tuple[float, float]:
        """(summed loss, summed weight) over the global batch, without gradients; the same on every rank."""
        ...

    def state_tensors(self, *, for_saving: bool = False) -> dict[str, FullTensor]:
        """fp32 weights and optimizer moments by layout-free name, `"{parameter}/weight"`, `"{parameter}/exp_avg"`, ...; views.

        Every process names all it holds, so that all of it can be written on load. With `for_saving`, copies are left out
        (replicated parameters on tensor ranks other than the first, tied parameters on stages other than the first): together
        the processes then give every value exactly once. A tensor of which a process has no piece is not named by it.
        """
        ...

    def state_scalars(self) -> dict[str, float | int]:
        """Optimizer step count and loss-scale state: what is neither a tensor nor derivable from the iteration."""
        ...

    def load_scalars(self, scalars: dict[str, float | int]) -> None:
        """Put back what `state_scalars` returned."""
        ...

    def after_load(self) -> None:
        """Push the fp32 weights just written through `state_tensors` into the (low-precision) model parameters."""
        ...
