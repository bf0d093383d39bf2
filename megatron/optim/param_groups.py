"""Which parameters are decayed: matrices are, vectors (norm weights, biases) are not.

The decision is made on the *full* shape that `ShardInfo` records, so that it is the same however a parameter is cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from megatron.mpu.shard import shard_of


def build_param_groups(parameters: Iterable[nn.Parameter], *, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of the trainable `parameters`, each parameter once: those decayed by `weight_decay`, then those not.

    A group without parameters is left out.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in dict.fromkeys(parameters):
        if parameter.requires_grad:
            (decayed if is_decayed(parameter) else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def is_decayed(parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to the parameter: its full tensor has at least two dimensions."""
    return len(shard_of(parameter).full_shape) >= 2
