"""How the linear layers of blocks multiply: as they are, in torch's fp8 products, or by Transformer Engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from megatron.log import get_logger
from megatron.model.block import Block
from megatron.mpu.fp8 import E4M3, E5M2, Fp8Products, check_device
from megatron.mpu.linear import ParallelLinear
from megatron.mpu.transformer_engine import LinearProduct

if TYPE_CHECKING:
    from megatron.neox_arguments import NeoXArgs

_GRADIENT_TYPES = {"hybrid": E5M2, "e4m3": E4M3}

logger = get_logger(__name__)


def choose_products(block: Block, args: NeoXArgs) -> None:
    """Let the linear layers of `block` multiply as configured. What they hold stays as it is."""
    attention, mlp = block.attention, block.mlp
    if args.fp8 != "none":
        products = Fp8Products(
            rowwise=args.fp8 == "rowwise",
            gradient_type=_GRADIENT_TYPES[args.fp8_format],
            weight_gradient_too=args.fp8_wgrad,
        )
        for layer in (attention.query_key_value, attention.dense, mlp.linear1, mlp.linear2):
            layer.products = products
    by_library = (
        (attention.query_key_value, args.te_columnparallel or args.te_mha),
        (attention.dense, args.te_rowparallel or args.te_mha),
        (mlp.linear1, args.te_columnparallel or args.te_layernorm_mlp),
        (mlp.linear2, args.te_rowparallel or args.te_layernorm_mlp),
    )
    for layer, is_chosen in by_library:
        if is_chosen:
            layer.product = _library_product(layer, args.te_fp8_format)


def check_products(args: NeoXArgs, device: torch.device) -> None:
    """Before training: raise NeoXError when `device` lacks the products that are configured, and say where they are slow."""
    if args.fp8 == "none":
        return
    check_device(device)
    if device.type == "cpu":
        logger.info("fp8 gives the numbers of fp8 on a CPU, but takes longer than without it")


def with_plain_products(args: NeoXArgs) -> NeoXArgs:
    """The same model for where nothing is trained: all is computed in the type of the weights, on any device."""
    plain = dict.fromkeys(("te_columnparallel", "te_rowparallel", "te_layernorm_mlp", "te_mha"), False)
    return args.model_copy(update={**plain, "fp8": "none", "norm": args.norm.removeprefix("te_")})


def _library_product(layer: ParallelLinear, fp8_format: str) -> LinearProduct:
    return LinearProduct(lambda: layer.weight, fp8_format=fp8_format)
