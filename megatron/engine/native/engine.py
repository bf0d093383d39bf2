"""The engine without DeepSpeed: the whole model on every rank (but for its tensor-parallel part), ZeRO 0 and 1, fp32 and bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from megatron.data.batch import Batch
from megatron.engine.common import CommonEngine, warn_of_no_tokens
from megatron.engine.model_loss import model_loss
from megatron.engine.native.bucket import Bucket
from megatron.engine.native.exchange import Exchange
from megatron.engine.native.gradients import Gradients
from megatron.engine.native.update import Optimizer, Totals, own_squares
from megatron.engine.protocol import FullTensor, Objective, StepResult, StepShape
from megatron.engine.state import full_tensors
from megatron.engine.update_gate import Judge
from megatron.mpu.collectives import all_reduce
from megatron.mpu.groups import ProcessGroups


class NativeEngine(CommonEngine):
    """Runs the micro-batches one after another through a `SequentialModel` whose parameters lie in `buckets`."""

    weights_are_whole = True

    def __init__(
        self,
        model: nn.Module,
        buckets: Sequence[Bucket],
        optimizer: Optimizer,
        exchange: Exchange,
        *,
        overlaps: bool,
        fuses_head: bool,
        objective: Objective,
        groups: ProcessGroups,
        device: torch.device,
        shape: StepShape,
    ) -> None:
        super().__init__(objective=objective, groups=groups, device=device, shape=shape)
        self._model = model
        self._buckets = buckets
        self._optimizer = optimizer
        self._exchange = exchange
        self._gradients = Gradients(buckets, exchange, overlaps=overlaps)
        self._fuses_head = fuses_head
        self._judge: Judge | None = None
        self._last_step: tuple[Sequence[Batch] | None, StepShape | None] = (None, None)

    @property
    def model(self) -> nn.Module:
        """The layers of this process, named by their numbers."""
        return self._model

    def train_step(
        self, micro_batches: Sequence[Batch] | None, *, lr: float, shape: StepShape | None = None
    ) -> StepResult:
        """Forward, backward and one optimizer step; see `Engine.train_step`. Waits for the device at its end only."""
        self._last_step = micro_batches, shape
        batches = self._counted(micro_batches, shape or self._configured_shape)
        self._optimizer.set_learning_rate(lr)
        loss, weight = self._run(batches)
        totals = self._over_processes(loss, weight, own_squares(self._buckets, self.device))
        is_withheld = self._refuses(totals)
        if not is_withheld:
            self._update(totals)
        mean_loss, norm, tokens, is_finite = totals.on_host()
        if not tokens:
            warn_of_no_tokens(self.groups)
        return StepResult(
            loss=mean_loss,
            grad_norm=norm if is_finite else None,
            lr=lr,
            loss_scale=1.0,
            skipped=not is_finite,
            withheld=is_withheld,
        )

    @torch.no_grad()
    def evaluate_step(self, micro_batches: Sequence[Batch] | None) -> tuple[float, float]:
        """(summed loss, summed weight) over the global batch; see `Engine.evaluate_step`."""
        batches = self._counted(micro_batches, self._configured_shape)
        self._model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for batch in map(self._on_device, batches):
            sums += torch.stack([self._loss_sum(batch).to(torch.float64), self._weight(batch)])
        loss, weight = all_reduce(sums, self.groups.replicas).tolist()
        return loss, weight

    def ask(self, judge: Judge | None) -> None:
        """From now on ask `judge` before every update; see `Engine.ask`."""
        self._judge = judge

    def rehearse(self) -> None:
        """Compute the last step again and leave everything as it was; see `Engine.rehearse`."""
        micro_batches, shape = self._last_step
        judge, self._judge = self._judge, lambda loss, norm: False
        try:
            self.train_step(micro_batches, lr=0.0, shape=shape)
        finally:
            self._judge = judge

    def whole_weights(self, module: nn.Module) -> AbstractContextManager[Any]:
        """See `Engine.whole_weights`."""
        return nullcontext()

    def state_tensors(self, *, for_saving: bool = False) -> dict[str, FullTensor]:
        """fp32 weights and optimizer moments as pieces of full tensors; see `Engine.state_tensors`."""
        fragments = (each for bucket in self._buckets for each in bucket.fragments(for_saving=for_saving))
        return full_tensors(fragments, self._optimizer.moments)

    def state_scalars(self) -> dict[str, float | int]:
        """The optimizer's step count."""
        return {"optimizer_step": self._optimizer.count}

    def load_scalars(self, scalars: dict[str, float | int]) -> None:
        """Put back what `state_scalars` returned; what only other engines have is left out."""
        self._optimizer.set_count(scalars.get("optimizer_step", 0))

    @torch.no_grad()
    def after_load(self) -> None:
        """Push the fp32 weights just written through `state_tensors` into the model's parameters (collective)."""
        self._share_weights()

    def _run(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """Forward and backward passes of all micro-batches: the sums of their losses and weights here."""
        self._model.train()
        loss, weight = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._gradients.begin()
        for number, batch in enumerate(map(self._on_device, batches)):
            weight += self._weight(batch)
            # The gradient is that of the sum: what it is divided by need not be known before the update.
            loss_sum = self._loss_sum(batch)
            loss += loss_sum.detach()
            if number == len(batches) - 1:
                self._gradients.expect_last()
            loss_sum.backward()
        self._gradients.finish()
        return loss, weight

    def _over_processes(self, loss: Tensor, weight: Tensor, squares: Tensor) -> Totals:
        """All by one message. Tensor ranks have computed the same loss: the first of them counts it."""
        values = torch.stack([loss, weight, squares])
        if self.groups.tensor.rank > 0:
            values[:2] = 0
        return Totals(*all_reduce(values, self.groups.world))

    def _refuses(self, totals: Totals) -> bool:
        """Whether there is a judge who keeps the update out. A step that is not finite is none of its business."""
        if self._judge is None:
            return False
        loss, norm, _, is_finite = totals.on_host()
        return is_finite and not self._judge(loss, norm)

    @torch.no_grad()
    def _update(self, totals: Totals) -> None:
        self._optimizer.step(totals)
        self._share_weights()

    def _share_weights(self) -> None:
        for pending in [self._exchange.start_weights(bucket) for bucket in self._buckets]:
            pending.wait()

    def _loss_sum(self, batch: Batch) -> Tensor:
        return model_loss(self._model, self.objective, batch, fused=self._fuses_head)

    def _weight(self, batch: Batch) -> Tensor:
        return self.objective.weight(batch).to(torch.float64)
