"""What blocks that are not built yet will keep of a micro-batch: counted from the operations of GPT-NeoX's modules, not measured.

Numbers a token: `h` hidden, `i` inner width of Mamba, `c` width of RWKV's channel mixing, `f` width of gMLP.
"""

from __future__ import annotations

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.memory.sizes import WIDE, Sizes
from megatron.planning.model.experts import expert_width
from megatron.planning.model.mixers import GMLP_EXPANSION, MAMBA_EXPANSION, rwkv_widths


def mixer_bytes(args: NeoXArgs, sizes: Sizes, kind: str) -> int:
    """What a block of a type that is a whole block keeps, its input included."""
    if kind == "mamba":
        # x and norm (2 h); projected twice i, convolved, step and scanned i; the fused kernel computes the convolution and the step anew
        inner = MAMBA_EXPANSION * sizes.hidden // sizes.tensor
        numbers = 2 * sizes.hidden + (3 if args.mamba_inner_func_fusion else 5) * inner
    elif kind == "rwkv":
        # time mixing: x, norm, difference, ten mixed inputs, r k v w, gate before and after, scanned, normed, gated; channel mixing:
        # x, norm, two mixed inputs, key before and after the square, value, gate before and after
        time, channels = rwkv_widths(args)
        numbers = 13 * sizes.hidden + 9 * time + 7 * sizes.hidden + 2 * channels
    else:
        # x and norm; widened and activated 2 f each, gate normed, projected, multiplied
        numbers = 2 * sizes.hidden + 7 * GMLP_EXPANSION * sizes.hidden // sizes.tensor
    attention = 2 * sizes.number * sizes.micro_batch * sizes.sequence**2 if kind == "amlp" else 0
    return sizes.number * sizes.tokens * numbers + attention


def experts_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """What a mixture of experts keeps: for each token and each of its experts the gathered input, inner features and output; and the
    router's probabilities. Tokens are taken to be spread evenly over the ranks."""
    inner = (4 if args.gated_activation else 2) * expert_width(args)
    routed = args.moe_top_k * sizes.tokens * (2 * sizes.hidden + inner) // sizes.tensor
    return sizes.number * routed + WIDE * sizes.tokens * args.moe_num_experts
