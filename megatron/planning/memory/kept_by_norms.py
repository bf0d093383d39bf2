"""What a norm keeps for its backward pass."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.planning.memory.sizes import WIDE, Sizes


@dataclass(frozen=True)
class NormCost:
    """What a norm keeps: whether its input, and how many bytes beside it."""

    keeps_input: bool
    bytes: int


def norm_cost(kind: str, sizes: Sizes, *, vectors: int, width: int) -> NormCost:
    """The cost of normalising `vectors` vectors of `width` channels."""
    wide = WIDE * vectors * width
    if kind == "scalenorm":
        # The input in fp32 (the input itself if it is), what it is after division, its lengths before and after clamping.
        return NormCost(not sizes.is_half, wide * (2 if sizes.is_half else 1) + 2 * WIDE * vectors)
    if kind in ("rmsnorm", "te_rmsnorm"):
        if sizes.device == "cuda":
            return NormCost(True, WIDE * vectors)
        return NormCost(not sizes.is_half, wide * (2 if sizes.is_half else 1) + WIDE * vectors)
    statistics = WIDE if sizes.device == "cuda" else sizes.number
    return NormCost(True, 2 * statistics * vectors)
