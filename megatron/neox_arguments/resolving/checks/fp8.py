"""What can be multiplied in 8-bit floating point: which precision and widths, and by whom."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.derive import nearest_multiples

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

LIBRARY_KEYS = ("te_columnparallel", "te_rowparallel", "te_layernorm_mlp", "te_mha")
"""The keys that let Transformer Engine multiply."""

_MULTIPLE = 16  # of the features that tensor cores take


def check_fp8_is_asked_of_one(args: Draft) -> None:
    """torch or Transformer Engine multiplies, not both."""
    library = next((key for key in LIBRARY_KEYS if getattr(args, key)), None)
    if args.fp8 != "none" and library is not None:
        raise Conflict(("fp8", library), "Transformer Engine multiplies in fp8 by itself; set fp8 to none")


def check_fp8_options(args: Draft) -> None:
    """How to multiply in fp8 is not said in vain."""
    for key, default in (("fp8_format", "hybrid"), ("fp8_wgrad", True)):
        if args.fp8 == "none" and getattr(args, key) != default:
            raise Conflict(
                (key, "fp8"), "nothing is multiplied in fp8; set fp8 to tensorwise or rowwise, or remove the key"
            )
    if args.te_fp8_format != "hybrid" and not any(getattr(args, key) for key in LIBRARY_KEYS):
        raise Conflict(
            ("te_fp8_format",),
            f"Transformer Engine multiplies nothing; set te_columnparallel to true ({', '.join(LIBRARY_KEYS[1:])} are the "
            "others), or remove the key",
        )


def check_fp8_precision(args: Draft) -> None:
    """Rounding to 8 bits has a type of half precision beside it that needs no loss scale."""
    if args.fp8 != "none" and args.precision != "bfloat16":
        raise Conflict(("fp8", "precision"), "fp8 multiplies numbers of bfloat16; set precision to bfloat16")


def check_fp8_width(args: Draft) -> None:
    """The residual stream is as wide as fp8 needs it."""
    key = _key_of_fp8(args)
    if key is not None and args.hidden_size % _MULTIPLE:
        wide = nearest_multiples(args.hidden_size, _MULTIPLE)
        raise Conflict(("hidden_size", key), f"fp8 needs widths that are multiples of 16; set hidden_size to {wide}")


def check_fp8_heads(args: Draft) -> None:
    """So are the queries, keys and values of a tensor rank together, and the queries by themselves."""
    key = _key_of_fp8(args)
    queries, keys = (
        heads * args.head_dim // args.model_parallel_size for heads in (args.num_attention_heads, args.num_kv_heads)
    )
    if key is not None and (queries % _MULTIPLE or (queries + 2 * keys) % _MULTIPLE):
        raise Conflict(
            ("head_dim", "num_attention_heads", "num_kv_heads", "model_parallel_size", key),
            f"fp8 needs widths that are multiples of 16, and a tensor rank has {queries} channels of queries and {keys} each "
            f"of keys and values; set head_dim to {nearest_multiples(args.head_dim, _MULTIPLE)}",
        )


def check_fp8_mlp(args: Draft) -> None:
    """And so is a tensor rank's part of the MLP."""
    key, ranks = _key_of_fp8(args), args.model_parallel_size
    if key is not None and args.mlp_width % (_MULTIPLE * ranks):
        raise Conflict(
            ("intermediate_size", "mlp_multiple_of", "model_parallel_size", key),
            f"fp8 needs widths that are multiples of 16 on each tensor rank, and the MLP is {args.mlp_width} wide in all; "
            f"set mlp_multiple_of to {math.lcm(args.mlp_multiple_of, _MULTIPLE * ranks)}",
        )


def _key_of_fp8(args: Draft) -> str | None:
    if args.fp8 != "none":
        return "fp8"
    return next((key for key in LIBRARY_KEYS if getattr(args, key)), None)
