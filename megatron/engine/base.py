"""What the sequential and the pipeline engine have in common: everything but running the micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from megatron.data.batch import Batch
from megatron.engine import zero_state
from megatron.engine.common import CommonEngine, warn_of_no_tokens
from megatron.engine.gradient_norm import replace_gradient_norm
from megatron.engine.loss_scale import LossScale
from megatron.engine.protocol import FullTensor, Objective, StepResult, StepShape
from megatron.engine.replicas import speaks_for
from megatron.engine.state import full_tensors
from megatron.engine.update_gate import Judge, UpdateGate
from megatron.engine.whole_weights import weights_are_whole, whole_weights
from megatron.mpu.groups import Group, ProcessGroups


class BaseEngine(CommonEngine):
    """State and step results of a model wrapped by `deepspeed.initialize`; subclasses run the micro-batches."""

    def __init__(
        self,
        library_engine: Any,
        *,
        objective: Objective,
        groups: ProcessGroups,
        device: torch.device,
        shape: StepShape,
    ) -> None:
        """shape: that of the steps which are not given another one, as `library_engine` was configured for."""
        super().__init__(objective=objective, groups=groups, device=device, shape=shape)
        self.library_engine = library_engine
        self._shape = shape
        self._optimizer = library_engine.optimizer
        self._loss_scale = LossScale(self._optimizer)
        self._gate = UpdateGate(self._optimizer)
        self._last_step: tuple[Sequence[Batch] | None, StepShape | None] = (None, None)
        replace_gradient_norm(self._optimizer)

    def state_tensors(self, *, for_saving: bool = False) -> dict[str, FullTensor]:
        """fp32 weights and optimizer moments as pieces of full tensors; see `Engine.state_tensors`."""
        zero_state.materialize_moments(self._optimizer)
        fragments = zero_state.fragments(self._optimizer)
        if for_saving:
            fragments = (fragment for fragment in fragments if speaks_for(fragment.parameter))
        return full_tensors(fragments, partial(zero_state.moments, self._optimizer))

    def state_scalars(self) -> dict[str, float | int]:
        """The optimizer's step count and the state of a dynamic loss scale."""
        counts = zero_state.step_counts(self._optimizer)
        return {"optimizer_step": int(counts[0]) if counts else 0, **self._loss_scale.state()}

    def load_scalars(self, scalars: dict[str, float | int]) -> None:
        """Put back what `state_scalars` returned; a run in another precision may lack some of it."""
        zero_state.materialize_moments(self._optimizer)
        for count in zero_state.step_counts(self._optimizer):
            count.fill_(scalars.get("optimizer_step", 0))
        self._loss_scale.load(scalars)

    def after_load(self) -> None:
        """Push the fp32 weights just written through `state_tensors` into the model's parameters (collective)."""
        zero_state.push_weights(self._optimizer)

    @property
    def model(self) -> nn.Module:
        """The layers of this process, named by their numbers."""
        module: nn.Module = self.library_engine.module
        return module

    @property
    def weights_are_whole(self) -> bool:
        """See `Engine.weights_are_whole`."""
        return weights_are_whole(self.model)

    def whole_weights(self, module: nn.Module) -> AbstractContextManager[Any]:
        """See `Engine.whole_weights`."""
        return whole_weights(module)

    def ask(self, judge: Judge | None) -> None:
        """From now on ask `judge` before every update; see `Engine.ask`."""
        self._gate.judge = judge

    def rehearse(self) -> None:
        """Compute the last step again and leave everything as it was; see `Engine.rehearse`."""
        micro_batches, shape = self._last_step
        zero_state.materialize_moments(
            self._optimizer
        )  # DeepSpeed looks for them after every update, also after one that is kept out
        scale, judge = self._loss_scale.state(), self._gate.judge
        self._gate.judge = _refuse
        try:
            self.train_step(micro_batches, lr=0.0, shape=shape)
        finally:
            self._gate.judge = judge
            self._loss_scale.load(scale)

    def train_step(
        self, micro_batches: Sequence[Batch] | None, *, lr: float, shape: StepShape | None = None
    ) -> StepResult:
        """Forward, backward and one optimizer step; see `Engine.train_step`."""
        raise NotImplementedError

    def _take_shape(self, shape: StepShape | None) -> None:
        """Make DeepSpeed ready for a step of this shape, None for the configured one."""
        shape = shape or self._configured_shape
        if shape.micro_batches != self._shape.micro_batches:
            library = self.library_engine
            samples = shape.micro_batches * library.train_micro_batch_size_per_gpu() * library.dp_world_size
            library.set_train_batch_size(samples)
            library.micro_steps = 0  # it takes multiples of the number of micro-batches for the ends of steps
        self._shape = shape

    def _set_learning_rate(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def _step_result(self, loss: float, lr: float) -> StepResult:
        """The outcome of the optimizer step just taken."""
        skipped = not self.library_engine.was_step_applied()
        self._loss_scale.finish_step()
        norm = self.library_engine.get_global_grad_norm()
        return StepResult(
            loss=loss,
            grad_norm=None if skipped or norm is None else float(norm),
            lr=lr,
            loss_scale=self._loss_scale.value,
            skipped=skipped,
            withheld=self._gate.end(),
        )

    def _checked(self, micro_batches: Sequence[Batch] | None) -> Sequence[Batch]:
        return self._counted(micro_batches, self._shape)

    def _global_weight(self, micro_batches: Sequence[Batch]) -> float:
        """What all micro-batches of all replicas count for together."""
        weights = torch.stack([self.objective.weight(batch).to(self.device, torch.float64) for batch in micro_batches])
        return float(self._sum(weights.sum(), self.groups.replicas))

    def _loss_factor(self, weight: float) -> float:
        """What to multiply a micro-batch's loss sum by, so that DeepSpeed's mean over micro-batches and ranks is sum / weight.

        Where nothing counts it is any number: the sum is 0, and so are the gradients. That is told once, by one of the ranks that know.
        """
        if not weight:
            warn_of_no_tokens(self.groups)
        return self._shape.micro_batches * self.groups.replicas.size / (weight or 1.0)

    @staticmethod
    def _sum(value: Tensor, group: Group) -> Tensor:
        """`value`, summed in place over the group."""
        if group.size > 1:
            torch.distributed.all_reduce(value, group=group.handle)
        return value


def _refuse(loss: float, grad_norm: float | None) -> bool:
    """The judge of a rehearsal."""
    return False
