"""The sequential engine: the whole model on every rank (but for its tensor-parallel part), under ZeRO stage 1, 2 or 3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from megatron.data.batch import Batch
from megatron.engine.base import BaseEngine
from megatron.engine.protocol import StepResult, StepShape
from megatron.engine.scaled_loss import scaled_loss


class SequentialEngine(BaseEngine):
    """Runs the micro-batches one after another through a `SequentialModel` wrapped by DeepSpeed."""

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
            # The logits are named nowhere: so their memory is free as soon as the backward pass has used them.
            loss = self.objective.loss_sum(self._logits(batch), batch)
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
            total += self.objective.loss_sum(self._logits(batch), batch)
        return float(self._sum(total, self.groups.replicas)), self._global_weight(batches)

    def _logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.library_engine(
            batch.tokens, batch.position_ids, document_ids=batch.document_ids, dropout_keys=batch.dropout_keys
        )
        return logits
