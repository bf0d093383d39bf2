"""Attention by torch's FlexAttention where `flash` would need a mask: blocks of scores that nobody sees are never computed.

Documents that do not see each other and windows shorter than the sequence become a list of the blocks to compute, made anew for each
micro-batch and shared by all layers; what scores lose with distance (ALiBi) is subtracted inside. The kernel is compiled (torch.compile,
Triton) at the first step. It trains on GPUs alone, without dropout and with heads of at least 16 channels: everything else is computed as
`flash` computes it, with the same result up to rounding.

Shapes: `s` sequence, `b` micro-batch, `n` local query heads, `k` local key/value heads, `d` head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from megatron.model.attention.flash import FlashAttention
from megatron.model.documents import Documents

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SMALLEST_HEAD = 16


class FlexAttention(FlashAttention):
    """The same function as `FlashAttention`, without its masks."""

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, documents: Documents | None = None
    ) -> Tensor:
        """See Attention.attend."""
        length = query.shape[2]
        is_windowed = self.window is not None and self.window < length
        is_masked = documents is not None or is_windowed or self.distance_bias is not None
        if allowed is not None or not is_masked or not _is_served(query):
            return super().attend(query, key, value, allowed, documents)
        if documents is None:
            blocks = _window_blocks(length, self.window, query.device)
        else:
            blocks = documents.once(("blocks", self.window), lambda: document_blocks(documents.numbers, self.window))
        slopes = None if self.distance_bias is None else self.distance_bias.slopes_on(query.device)
        mixed: Tensor = _compiled().attention(
            query,
            key,
            value,
            score_mod=None if slopes is None else _lessened(slopes),
            block_mask=blocks,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return mixed


def document_blocks(numbers: Tensor, window: int | None) -> BlockMask:
    """Which blocks of scores hold one that counts: of a query and an earlier key of its document (numbers int [b, s]), in its window."""
    rows, length = numbers.shape

    def is_seen(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _is_near(query, key, window) & (numbers[row, query] == numbers[row, key])

    return _compiled().blocks(is_seen, rows, None, length, length, device=numbers.device)


@lru_cache(maxsize=2)
def _window_blocks(length: int, window: int | None, device: torch.device) -> BlockMask:
    def is_seen(_row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _is_near(query, key, window)

    return _compiled().blocks(is_seen, None, None, length, length, device=device)


@lru_cache(maxsize=2)  # the kernel is compiled for a function: all layers give it the same one
def _lessened(slopes: Tensor) -> Callable[..., Tensor]:
    """Scores as the kernel has them, in fp32, less the slope of their head [n] for each token of distance."""

    def lessen(score: Tensor, _row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score - slopes[head] * (query - key)

    return lessen


def _is_near(query: Tensor, key: Tensor, window: int | None) -> Tensor:
    return query >= key if window is None else (query >= key) & (query - key < window)


def _is_served(query: Tensor) -> bool:
    return query.is_cuda and query.shape[-1] >= SMALLEST_HEAD


class _Compiled:
    """torch's two functions, compiled: uncompiled, each writes a tensor of the size of all scores."""

    def __init__(self) -> None:
        # Imported here: it brings the compiler along, which takes a second that other attention types need not spend.
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        self.attention: Callable[..., Any] = torch.compile(flex_attention, dynamic=False)
        self.blocks: Callable[..., BlockMask] = torch.compile(create_block_mask, dynamic=False)


@lru_cache(maxsize=1)
def _compiled() -> _Compiled:
    return _Compiled()
