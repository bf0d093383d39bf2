"""The optimizer, its sharding (ZeRO), gradient clipping and the learning rate."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from megatron.components import LR_SCHEDULES, OPTIMIZERS
from megatron.neox_arguments.keys.planned import PLANNED
from megatron.neox_arguments.keys.types import DERIVED, ComponentName, Group, Integer, Number, Section, lower_case

OptimizerName = Annotated[str, ComponentName(OPTIMIZERS, PLANNED["optimizer_type"]), BeforeValidator(lower_case)]


class OptimizerArgs(Group):
    """From gradients to new weights."""

    optimizer: Section = Field(DERIVED)
    """The optimizer and its settings, as `{type: Adam, params: {lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8}}`. Default: Adam, lr 1e-3,
    betas (0.9, 0.999), eps 1e-8."""

    optimizer_type: OptimizerName = "adam"
    """Name of the optimizer in lower case; another way to write optimizer.type."""

    use_bnb_optimizer: bool = False
    """Keep optimizer moments in 8 bits with the bitsandbytes package: 2 bytes a parameter instead of 8."""

    lr: Number = Field(DERIVED, ge=0)
    """Peak learning rate, reached at the end of warm-up. Default: optimizer.params.lr."""

    weight_decay: Number = Field(0.1, ge=0)
    """Decoupled weight decay: each step takes lr * weight_decay of every matrix away. Norm weights and biases are left alone. 0.1 is
    usual for language models."""

    gradient_clipping: Number = Field(1.0, ge=0)
    """Gradients are scaled down so that their global norm is at most this; 0 switches it off. Existing GPT-NeoX does not apply this default,
    nor a written 1.0, which it takes for the default; here it is applied, always."""

    clip_grad: Number = Field(1.0, ge=0)
    """Older spelling of gradient_clipping."""

    zero_optimization: Section = Field(DERIVED)
    """ZeRO, which divides among data-parallel (and context) ranks what each would hold: stage 0 nothing, 1 optimizer states, 2 also
    gradients, 3 also weights. Further keys say how they are exchanged. A given section replaces the default as a whole. Default: stage 0."""

    zero_stage: Integer = Field(DERIVED, ge=0, le=3)
    """What data-parallel ranks divide: 0 nothing, 1 optimizer states, 2 also gradients, 3 also weights. Default:
    zero_optimization.stage."""

    zero_reduce_scatter: bool = Field(DERIVED)
    """Send every rank only the gradients it updates. Default: zero_optimization.reduce_scatter."""

    zero_contiguous_gradients: bool = Field(DERIVED)
    """Copy gradients into one buffer as they appear. Default: zero_optimization.contiguous_gradients."""

    zero_reduce_bucket_size: Integer = Field(DERIVED, ge=1)
    """Gradient elements reduced at a time. Default: zero_optimization.reduce_bucket_size."""

    zero_allgather_bucket_size: Integer = Field(DERIVED, ge=1)
    """Weight elements gathered at a time. Default: zero_optimization.allgather_bucket_size."""

    lr_decay_style: Annotated[str, ComponentName(LR_SCHEDULES)] = "linear"
    """Shape of the learning rate after warm-up: constant, linear to 0, cosine to min_lr, or exponential (halved over the decay)."""

    lr_decay_iters: Integer | None = Field(None, ge=1)
    """Iterations until the decay is complete, warm-up included. Default: train_iters."""

    lr_decay_fraction: Number | None = Field(None, gt=0)
    """Length of the decay as a share of train_iters; another way to write lr_decay_iters."""

    min_lr: Number = Field(0.0, ge=0)
    """The learning rate never falls below this after warm-up; usually a tenth of the peak."""

    warmup: Number = Field(0.01, ge=0, le=1)
    """Share of the decay iterations in which the learning rate rises linearly from 0 to lr. A longer one keeps the first steps of
    large models stable."""

    override_lr_scheduler: bool = False
    """Go on with the learning rates of this config where the checkpoint's run would go on with others. Without this key or the next one
    such a run ends before its first step, with both values."""

    use_checkpoint_lr_scheduler: bool = False
    """Go on with the learning rates of the checkpoint's run (lr, lr_decay_style, its length, min_lr and warmup), whatever this config says
    of them."""

    @property
    def optimizer_params(self) -> dict[str, Any]:
        """The optimizer's own settings (betas, eps, ...), without lr and weight_decay, which have keys of their own."""
        params = self.optimizer.get("params", {})
        return {key: value for key, value in params.items() if key not in ("lr", "weight_decay")}
