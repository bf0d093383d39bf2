"""Mixture of experts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import Group, Integer, Number


class MoEArgs(Group):
    """Experts and the router in front of them."""

    moe_num_experts: Integer = Field(1, ge=1)
    """MLPs a mixture layer chooses from. 1 is an ordinary dense model."""

    moe_expert_interval: Integer = Field(1, ge=1)
    """Distance between layers whose MLP is a mixture: 1 for every layer, 2 for every other one."""

    moe_top_k: Integer = Field(1, ge=1)
    """Experts each token is sent to; compute grows with it, parameters do not."""

    moe_router_type: Literal["sinkhorn", "topk"] = "sinkhorn"
    """How tokens are assigned: `sinkhorn` balances the experts while assigning, `topk` takes the best scores and needs a balancing
    loss."""

    moe_lbl_in_fp32: bool = False
    """Compute the load-balancing loss in fp32 whatever the precision of the model."""

    moe_jitter_eps: Number | None = Field(None, ge=0)
    """Multiply the router's input by uniform noise in [1 - eps, 1 + eps] while training, against early collapse onto few experts.
    Default: no noise."""
