"""The sequential engine: the whole model on every rank (but for its tensor-parallel part), under ZeRO stage 1, 2 or 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from megatron.data.batch import Batch
from megatron.engine.base import BaseEngine
from megatron.engine.model_loss import model_loss
from megatron.engine.protocol import Objective, StepResult, StepShape
from megatron.engine.scaled_loss import scaled_loss
from megatron.mpu.groups import ProcessGroups


class SequentialEngine(BaseEngine):
    """Runs the micro-batches one after another through a `SequentialModel` wrapped by DeepSpeed."""

    def __init__(
        self,
        library_engine: Any,
        *,
        fuses_head: bool,
        objective: Objective,
        groups: ProcessGroups,
        device: torch.device,
        shape: StepShape,
    ) -> None:
        """fuses_head: see `model_loss`; shape: as of `BaseEngine`."""
        super().__init__(library_engine, objective=objective, groups=groups, device=device, shape=shape)
        self._fuses_head = fuses_head

    def train_step(
        self, micro_batches: Sequence[Batch] | None, *, lr: float, shape: StepShape | None = None
    ) -> StepResult:
        """Forward, backward and one optimizer step; see `Engine.train_step`."""
        self._last_step = micro_batches, shape
        self._take_shape(shape)
        batches = self._checked(micro_batches)
        self._set_learning_rate(lr)
        weight = self._global_weight(batches)
        factor = self._loss_factor(weight)
        self.library_engine.train()
        total = torch.zeros((), dtype=torch.float32, device=self.device)

        def mean_loss() -> float:
            return float(self._sum(total.clone(), self.groups.replicas)) / (weight or 1.0)

        self._gate.begin(mean_loss)
        for batch in batches:
            batch = self._on_device(batch)
            loss = model_loss(self.library_engine, self.objective, batch, fused=self._fuses_head)
            total += loss.detach()
            self.library_engine.backward(scaled_loss(loss, factor))
            self.library_engine.step()
        return self._step_result(mean_loss(), lr)

    @torch.no_grad()
    def evaluate_step(self, micro_batches: Sequence[Batch] | None) -> tuple[float, float]:
        """(summed loss, summed weight) over the global batch; see `Engine.evaluate_step`."""
        self._take_shape(None)
        batches = self._checked(micro_batches)
        self.library_engine.eval()
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        for batch in batches:
            batch = self._on_device(batch)
            total += model_loss(self.library_engine, self.objective, batch, fused=self._fuses_head)
        return float(self._sum(total, self.groups.replicas)), self._global_weight(batches)
