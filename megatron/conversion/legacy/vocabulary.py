"""Whether the rows of the vocabulary in a checkpoint of GPT-NeoX are those of the tokenizer, in words.

GPT-NeoX pads the vocabulary to a multiple of `make_vocab_size_divisible_by` x tensor-parallel ranks, and keeps the padding in its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron.errors import CheckpointError

_DIVISIBLE_BY = 128


def padding_step(saved: Mapping[str, Any], ranks: int) -> int:
    """What the rows were rounded up to a multiple of. saved: the settings of the run; ranks: of tensor parallelism, as the files say."""
    divisible_by = saved.get("make_vocab_size_divisible_by", _DIVISIBLE_BY)
    saved_ranks = saved.get("model_parallel_size", 1)
    is_sane = all(isinstance(value, int) and value > 0 for value in (divisible_by, saved_ranks))
    return int(divisible_by) * max(int(saved_ranks), ranks) if is_sane else _DIVISIBLE_BY * ranks


def check_rows(description: str, rows: int, wanted: int, step: int) -> None:
    """Raises CheckpointError when `rows` of a file cannot be `wanted` tokens and less than one step of padding."""
    if rows < wanted:
        raise CheckpointError(
            f"{description} has {rows} rows of vocabulary, fewer than the {wanted} tokens of the tokenizer: likely it was trained with another "
            "tokenizer; set vocab_file (and tokenizer_type) to that one"
        )
    if rows - wanted >= step:
        raise CheckpointError(
            f"{description} has {rows} rows of vocabulary, and the tokenizer has {wanted} tokens: padding to a multiple of {step} "
            f"(make_vocab_size_divisible_by x tensor-parallel ranks) leaves fewer than {step} rows over, not {rows - wanted}; likely it was "
            f"trained with another tokenizer: set vocab_file (and tokenizer_type) to that one, or vocab_size: {rows} to keep all rows"
        )


def padding_remark(description: str, rows: int, wanted: int) -> str | None:
    """What is lost with the rows of padding, if there are any."""
    if rows == wanted:
        return None
    return (
        f"{description} has {rows} rows of vocabulary for {wanted} tokens; the {rows - wanted} rows of padding are dropped. GPT-NeoX had them in "
        f"its softmax, so its losses were a little higher; vocab_size: {rows} keeps them"
    )
