"""What the sequential and the pipeline engine have in common: everything but running the micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from megatron.data.batch import Batch
from megatron.engine import zero_state
from megatron.engine.gradient_norm import replace_gradient_norm, speaks_for
from megatron.engine.loss_scale import LossScale
from megatron.engine.pieces import shard_pieces
from megatron.engine.protocol import FullTensor, Objective, Piece, StepResult
from megatron.mpu.groups import Group, ProcessGroups
from megatron.mpu.shard import shard_of


class BaseEngine:
    """State and step results of a model wrapped by `deepspeed.initialize`; subclasses run the micro-batches."""

    reads_data = True

    def __init__(
        self, library_engine: Any, *, objective: Objective, groups: ProcessGroups, device: torch.device
    ) -> None:
        self.library_engine = library_engine
        self.objective = objective
        self.groups = groups
        self.device = device
        self._optimizer = library_engine.optimizer
        self._loss_scale = LossScale(self._optimizer)
        replace_gradient_norm(self._optimizer)

    def state_tensors(self, *, for_saving: bool = False) -> dict[str, FullTensor]:
        """fp32 weights and optimizer moments as pieces of full tensors; see `Engine.state_tensors`."""
        zero_state.materialize_moments(self._optimizer)
        shapes: dict[str, tuple[int, ...]] = {}
        pieces: dict[str, list[Piece]] = {}
        for fragment in zero_state.fragments(self._optimizer):
            info = shard_of(fragment.parameter)
            if for_saving and not speaks_for(fragment.parameter):
                continue
            sources = {"weight": fragment.flat.detach(), **zero_state.moments(self._optimizer, fragment.flat)}
            for key, flat in sources.items():
                values = flat.narrow(0, fragment.flat_start, fragment.length)
                name = f"{info.name}/{key}"
                shapes[name] = info.logical_shape
                pieces.setdefault(name, []).extend(shard_pieces(info, fragment.start, values))
        return {name: FullTensor(shapes[name], tuple(parts)) for name, parts in pieces.items() if parts}

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
        )

    def _checked(self, micro_batches: Sequence[Batch] | None) -> Sequence[Batch]:
        wanted = self.library_engine.gradient_accumulation_steps()
        if micro_batches is None or len(micro_batches) != wanted:
            given = "none" if micro_batches is None else str(len(micro_batches))
            raise ValueError(
                f"this rank must be given gradient_accumulation_steps = {wanted} micro-batches, not {given}"
            )
        return micro_batches

    def _global_weight(self, micro_batches: Sequence[Batch]) -> float:
        """What all micro-batches of all data-parallel ranks count for together."""
        weights = torch.stack([self.objective.weight(batch).to(self.device, torch.float64) for batch in micro_batches])
        return float(self._sum(weights.sum(), self.groups.data))

    def _on_device(self, batch: Batch) -> Batch:
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
        return replace(batch, **{name: value.to(self.device) for name, value in values.items() if value is not None})

    def _loss_factor(self, weight: float) -> float:
        """What to multiply a micro-batch's loss sum by, so that DeepSpeed's mean over micro-batches and ranks is sum / weight."""
        micro_batches: int = self.library_engine.gradient_accumulation_steps()
        return micro_batches * self.groups.data.size / (weight or 1.0)

    @staticmethod
    def _sum(value: Tensor, group: Group) -> Tensor:
        """`value`, summed in place over the group."""
        if group.size > 1:
            torch.distributed.all_reduce(value, group=group.handle)
        return value
