"""Parameters of a mixture of experts, which stands in for the MLP of every `moe_expert_interval`-th block; not built yet.

As in GPT-NeoX's dropless mixture: a router that every tensor rank has whole, and the experts' matrices stacked by rows, of which each
rank has those of its experts. No biases. Gated experts have a third matrix.
"""

from __future__ import annotations

import math

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.model.shapes import TensorShape

WIDTH_MULTIPLE = 256


def has_experts(args: NeoXArgs, layer: int) -> bool:
    """Whether block number `layer`, from 0, is a mixture."""
    return args.moe_num_experts > 1 and layer % args.moe_expert_interval == 0


def expert_width(args: NeoXArgs) -> int:
    """Inner width of one expert: intermediate_size as it is written, else 4 h (8/3 h when gated) rounded up to a multiple of 256."""
    if args.intermediate_size is not None:
        return args.intermediate_size
    wanted = args.hidden_size * 8 // 3 if args.gated_activation else args.hidden_size * 4
    return math.ceil(wanted / WIDTH_MULTIPLE) * WIDTH_MULTIPLE


def expert_tensors(args: NeoXArgs) -> tuple[TensorShape, ...]:
    """The router and the experts."""
    stacked = (args.moe_num_experts * expert_width(args), args.hidden_size)
    matrices = ("w1", "w3", "w2") if args.gated_activation else ("w1", "w2")
    return (
        TensorShape("router.layer.weight", (args.moe_num_experts, args.hidden_size)),
        *(TensorShape(f"experts.mlp.{name}", stacked, 0) for name in matrices),
    )
