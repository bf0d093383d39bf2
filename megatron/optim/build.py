"""From the configuration to an optimizer over a model's parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from megatron.components import OPTIMIZERS
from megatron.neox_arguments import NeoXArgs
from megatron.optim.param_groups import build_param_groups


def build_optimizer(args: NeoXArgs, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer named by `optimizer.type` over the trainable `parameters`, grouped by whether they are decayed."""
    build = OPTIMIZERS.load(args.optimizer_type)
    optimizer: torch.optim.Optimizer = build(args, build_param_groups(parameters, weight_decay=args.weight_decay))
    return optimizer
