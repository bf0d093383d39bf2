"""What the rest of the framework may assume of a training engine, whatever runs underneath."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from megatron.data.batch import Batch
from megatron.engine.replicas import Replica
from megatron.engine.stage_clock import StageClock
from megatron.engine.update_gate import Judge
from megatron.model.projection import Projection
from megatron.mpu.groups import ProcessGroups


class Objective(Protocol):
    """What is minimised: the sum of `loss_sum` over the global batch divided by the sum of `weight` over it."""

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        """Summed loss of one micro-batch, a scalar. `logits` [b, s, v/t] are this rank's part of the vocabulary."""
        ...

    def weight(self, batch: Batch) -> Tensor:
        """What the micro-batch counts for (its number of non-masked tokens), a scalar."""
        ...


@runtime_checkable
class ProjectionObjective(Protocol):
    """An objective that needs no logits as a whole: it also takes hidden states and the head's matrix."""

    def projected_loss_sum(self, projection: Projection, batch: Batch) -> Tensor:
        """As `Objective.loss_sum` of the projection's logits, up to rounding; its backward pass runs once."""
        ...


@dataclass(frozen=True)
class StepShape:
    """What the batches of a step are like: micro-batches on each data-parallel rank, and tokens of a sequence, over all context ranks."""

    micro_batches: int
    length: int


@dataclass(frozen=True)
class StepResult:
    """One optimizer step, the same values on every rank.

    loss: mean over the non-masked tokens of the global batch; grad_norm: global norm before clipping, None when the step was
    skipped; loss_scale: the fp16 loss scale that the next step will use, 1 in other precisions; skipped: the step was not applied
    because the loss or a gradient was not finite; withheld: it was not applied because the judge refused it (see `Engine.ask`).
    """

    loss: float
    grad_norm: float | None
    lr: float
    loss_scale: float
    skipped: bool
    withheld: bool = False


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
    stage_clock: StageClock | None  # of a pipeline's stage
    reads_data: bool  # whether this rank's stage needs batches (first and last stages); the others are given None

    def train_step(
        self, micro_batches: Sequence[Batch] | None, *, lr: float, shape: StepShape | None = None
    ) -> StepResult:
        """Forward, backward and one optimizer step over the local micro-batches of a global batch.

        There must be as many of them as `shape` says (raises ValueError), which all ranks are given: those without batches as well.
        None is the configured shape, `gradient_accumulation_steps` micro-batches of `seq_length` tokens, which `evaluate_step` takes.
        """
        ...

    @property
    def model(self) -> nn.Module:
        """The layers of this process: children named by their numbers."""
        ...

    @property
    def weights_are_whole(self) -> bool:
        """Whether this process can read its weights without the others; where not (ZeRO 3), see `whole_weights`."""
        ...

    def whole_weights(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Within it, parameters of `module` that are also the model's can be read (collective over the replicas where they are in pieces)."""
        ...

    def ask(self, judge: Judge | None) -> None:
        """From now on ask `judge` before every update, and leave the weights alone when it refuses; None asks nobody.

        Costs a wait for the loss and the gradient norm in every step. All ranks must have judges that answer the same.
        """
        ...

    def rehearse(self) -> None:
        """Run the last step again as `train_step` did, without an update: weights, optimizer and loss scale stay as they are (collective).

        The seed of its random numbers is the caller's business.
        """
        ...

    def replicas(self) -> list[Replica]:
        """The weights of this process that others must hold as well, to the bit; views, in the order of the layers."""
        ...

    def first_non_finite_weight(self) -> str | None:
        """The name of the first parameter whose weights here are not all finite; None when all are. Waits for the device."""
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
