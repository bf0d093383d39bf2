"""What every engine does alike, whatever runs underneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import nn

from megatron.data.batch import Batch
from megatron.engine.protocol import Objective, StepShape
from megatron.engine.replicas import Replica, first_non_finite, replicas_of
from megatron.engine.stage_clock import StageClock
from megatron.log import get_logger
from megatron.mpu.groups import ProcessGroups

logger = get_logger(__name__)


class CommonEngine:
    """The place of a model in the world, and what can be said of its weights there."""

    reads_data = True
    stage_clock: StageClock | None = None

    def __init__(self, *, objective: Objective, groups: ProcessGroups, device: torch.device, shape: StepShape) -> None:
        """shape: that of the steps which are not given another one."""
        self.objective = objective
        self.groups = groups
        self.device = device
        self._configured_shape = shape

    @property
    def model(self) -> nn.Module:
        """The layers of this process, named by their numbers."""
        raise NotImplementedError

    def replicas(self) -> list[Replica]:
        """The weights that other processes must hold as well; see `Engine.replicas`."""
        return list(replicas_of(self.model, self.groups))

    def first_non_finite_weight(self) -> str | None:
        """See `Engine.first_non_finite_weight`."""
        return first_non_finite(self.model, self.groups)

    def _on_device(self, batch: Batch) -> Batch:
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
        return replace(batch, **{name: value.to(self.device) for name, value in values.items() if value is not None})

    @staticmethod
    def _counted(micro_batches: Sequence[Batch] | None, shape: StepShape) -> Sequence[Batch]:
        """The micro-batches of a step of this shape. Raises ValueError when there are fewer or more of them."""
        if micro_batches is None or len(micro_batches) != shape.micro_batches:
            given = "none" if micro_batches is None else str(len(micro_batches))
            raise ValueError(f"this rank must be given {shape.micro_batches} micro-batches, not {given}")
        return micro_batches


def warn_of_no_tokens(groups: ProcessGroups) -> None:
    """Say, on one of the ranks that know, that nothing counts in the batch of a step."""
    if groups.replicas.rank == groups.tensor.rank == 0:
        logger.warning(
            "no token of this step's batch is to be predicted (by label data or eod_mask_loss): its loss counts as 0, and nothing "
            "but momentum and weight decay moves the weights"
        )
