"""From a micro-batch to its loss, by way of logits or inside the head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from megatron.data.batch import Batch
from megatron.engine.protocol import Objective, ProjectionObjective
from megatron.model.projection import Projection
from megatron.neox_arguments.derive import derive_fused_head

if TYPE_CHECKING:
    from megatron.neox_arguments import NeoXArgs


def fuses_head(args: NeoXArgs, objective: Objective) -> bool:
    """Whether the loss is computed inside the head: the configuration wants it and the objective can."""
    wanted = derive_fused_head(args.fused_linear_cross_entropy, precision=args.precision, train_impl=args.train_impl)
    return wanted and isinstance(objective, ProjectionObjective)


def model_loss(model: Callable[..., Tensor], objective: Objective, batch: Batch, *, fused: bool) -> Tensor:
    """The summed loss of a micro-batch, a scalar. model: called as a `SequentialModel`; fused: as `fuses_head` has said."""
    options = {"document_ids": batch.document_ids, "dropout_keys": batch.dropout_keys}
    if not fused:
        # The logits are named nowhere: so their memory is free as soon as the backward pass has used them.
        return objective.loss_sum(model(batch.tokens, batch.position_ids, **options), batch)

    def criterion(projection: Projection) -> Tensor:
        return projected_loss(objective, projection, batch)

    return model(batch.tokens, batch.position_ids, criterion=criterion, **options)


def projected_loss(objective: Objective, projection: Projection, batch: Batch) -> Tensor:
    """The summed loss of a micro-batch of which the head gave a projection: of an objective that takes one."""
    assert isinstance(objective, ProjectionObjective)
    return objective.projected_loss_sum(projection, batch)
