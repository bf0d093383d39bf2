"""What recomputation, where it is on, computes again."""

from __future__ import annotations

from megatron.neox_arguments.arguments import NeoXArgs


def is_selective(args: NeoXArgs) -> bool:
    """Whether the scores of attention are recomputed, not whole blocks."""
    return args.recompute_granularity == "selective"


def has_scores(args: NeoXArgs, kind: str) -> bool:
    """Whether attention of this type writes its scores to memory in training; `flash` and `flex` only to drop some of them."""
    return kind == "global" or (kind in ("flash", "flex") and args.attention_dropout > 0)
