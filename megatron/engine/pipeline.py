"""The pipeline engine: each rank runs the layers of its stage, micro-batches follow one another through the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from megatron.data.batch import Batch
from megatron.engine.base import BaseEngine
from megatron.engine.library import deepspeed
from megatron.engine.protocol import Objective, StepResult, StepShape
from megatron.engine.stage import BatchLoss, StageModule, batch_tensors, model_inputs
from megatron.engine.stage_clock import StageClock
from megatron.mpu.groups import ProcessGroups

schedule = deepspeed.runtime.pipe.schedule


class PipelineEngine(BaseEngine):
    """Runs a `StageModule` under DeepSpeed's pipeline schedule (one forward, one backward in turn)."""

    def __init__(
        self,
        library_engine: Any,
        *,
        objective: Objective,
        groups: ProcessGroups,
        device: torch.device,
        shape: StepShape,
    ) -> None:
        super().__init__(library_engine, objective=objective, groups=groups, device=device, shape=shape)
        self._module: StageModule = library_engine.module
        self._loss: BatchLoss = self._module.loss
        self.reads_data = self._module.is_first or self._module.is_last
        self.stage_clock = clock = StageClock(device)
        instructions = library_engine._INSTRUCTION_MAP
        instructions = {**instructions, schedule.ForwardPass: _with_targets(instructions[schedule.ForwardPass])}
        library_engine._INSTRUCTION_MAP = {
            **instructions,
            **{kind: clock.timed(instructions[kind]) for kind in (schedule.ForwardPass, schedule.BackwardPass)},
            schedule.ReduceTiedGrads: _reduce_tied_gradients,
        }

    def train_step(
        self, micro_batches: Sequence[Batch] | None, *, lr: float, shape: StepShape | None = None
    ) -> StepResult:
        """Forward, backward and one optimizer step; see `Engine.train_step`."""
        self._last_step = micro_batches, shape
        self._take_shape(shape)
        self._set_learning_rate(lr)
        if self._module.is_last:
            self._loss.factor = self._loss_factor(self._global_weight(self._checked(micro_batches)))
        # DeepSpeed's mean over micro-batches and replicas of the scaled losses, broadcast from the last stage.
        self._gate.begin(lambda: float(self.library_engine._aggregate_total_loss()))
        loss = self.library_engine.train_batch(self._feed(micro_batches))
        return self._step_result(float(loss), lr)

    def evaluate_step(self, micro_batches: Sequence[Batch] | None) -> tuple[float, float]:
        """(summed loss, summed weight) over the global batch; see `Engine.evaluate_step`."""
        self._take_shape(None)
        self._loss.factor = 1.0
        losses = self.library_engine.eval_batch(self._feed(micro_batches), reduce_output=None, bcast_loss=False)
        result = torch.zeros(2, dtype=torch.float64, device=self.device)
        if self._module.is_last:
            result[0] = self._sum(torch.stack(losses).sum().to(torch.float64), self.groups.replicas)
            result[1] = self._global_weight(self._checked(micro_batches))
        pipe = self.groups.pipe
        if pipe.size > 1:
            torch.distributed.broadcast(result, src=pipe.ranks[-1], group=pipe.handle)
        loss, weight = result.tolist()
        return loss, weight

    def _take_shape(self, shape: StepShape | None) -> None:
        length = self._shape.length
        super()._take_shape(shape)
        if self._shape.length != length:
            # Stages tell each other the shapes of what they send once only.
            self.library_engine.reset_activation_shape()

    def _feed(
        self, micro_batches: Sequence[Batch] | None
    ) -> Iterator[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] | None:
        """(inputs of the first stage, tensors of the loss) of each micro-batch; None on the stages between."""
        if not self.reads_data:
            return None
        return iter([(model_inputs(batch), batch_tensors(batch)) for batch in self._checked(micro_batches)])


def _with_targets(forward_pass: Callable[..., None]) -> Callable[..., None]:
    """The instruction, whose stage knows what its output is compared with: the last one may compute the loss itself."""

    def run(library_engine: Any, buffer_id: int) -> None:
        stage: StageModule = library_engine.module
        if stage.is_last and stage.loss.fuses_head:
            stage.loss_tensors = library_engine.pipe_buffers["labels"][buffer_id]
            # The loss of two micro-batches ago, by which autograd holds what came in then and the gradient of that.
            library_engine.pipe_buffers["outputs"][buffer_id] = None
        forward_pass(library_engine, buffer_id)

    return run


def _reduce_tied_gradients(library_engine: Any) -> None:
    """Sum the gradients of parameters that several stages hold, before they are averaged over the replicas.

    In place of DeepSpeed's own instruction, which silently skips them in fp16 with fp32 accumulation: it does not look at
    `grad_accum`, where the gradients then are.
    """
    for parameter, group in library_engine.module.get_tied_weights_and_groups():
        gradient = _accumulated_gradient(library_engine.optimizer, parameter)
        torch.distributed.all_reduce(gradient, group=group)


def _accumulated_gradient(optimizer: Any, parameter: Tensor) -> Tensor:
    gradient: Tensor | None
    if getattr(optimizer, "use_grad_accum_attribute", False):
        gradient = parameter.grad_accum  # type: ignore[attr-defined]
    else:
        gradient = getattr(parameter, "_hp_grad", parameter.grad)
    assert gradient is not None, "a tied parameter took no part in the backward pass"
    return gradient
