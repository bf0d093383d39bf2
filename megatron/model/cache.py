"""Keys and values of earlier tokens, kept while generating so that each new token costs one step and not a whole sequence.

Prompts of different lengths are padded on the *left*: all rows share one write position, and row i's text begins at column
`starts[i]`. The padding columns are masked, and positions are counted from the row's own start:

    cache = KeyValueCache(batch_size=b, max_length=n, starts=prompts.shape[1] - prompt_lengths)
    logits = model(prompts, cache.next_position_ids(prompts.shape[1]), cache)        # [b, s, v/t]
    logits = model(next_tokens, cache.next_position_ids(1), cache)                   # next_tokens [b, 1]

Shapes: `b` rows, `s` new columns, `S` columns so far including the new ones, `k` local key/value heads, `d` head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


class KeyValueCache:
    """Room for `max_length` columns of `batch_size` rows; a layer's buffers are allocated whole when it first writes.

    starts: int64 [b], the column at which each row's text begins, None = 0 for all; it lives on the model's device.
    """

    def __init__(self, *, batch_size: int, max_length: int, starts: Tensor | None = None) -> None:
        self.batch_size = batch_size
        self.max_length = max_length
        self.length = 0
        self.starts = starts
        self._is_padded = starts is not None and bool(starts.any())
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}
        self._new_columns = 0
        self._allowed: Tensor | None = None
        self._made: dict[object, Any] = {}

    def next_position_ids(self, count: int, device: torch.device | str | None = None) -> Tensor:
        """Positions int64 [b, count] of the next `count` columns in their rows' own texts; 0 in padding columns.

        device: where the model is; needed only when there are no `starts` to tell.
        """
        starts = torch.zeros(self.batch_size, dtype=torch.int64, device=device) if self.starts is None else self.starts
        columns = torch.arange(self.length, self.length + count, device=starts.device)
        return (columns - starts[:, None]).clamp(min=0)

    def extend(self, count: int, device: torch.device | str | None = None) -> None:
        """Take the next `count` columns; the model calls this once a forward pass, before its layers write them.

        device: where the model is. Raises ValueError when they do not fit.
        """
        if self.length + count > self.max_length:
            raise ValueError(f"{self.length} + {count} columns do not fit a key-value cache of {self.max_length}")
        self._new_columns = count
        self._made.clear()
        self.length += count
        self._allowed = self._build_mask(device) if self._is_padded or self.length > count else None

    @property
    def allowed(self) -> Tensor | None:
        """Which columns each new column attends to, bool [b or 1, 1, s, S]; None = plain causal over the new columns alone."""
        return self._allowed

    def once(self, key: object, build: Callable[[], Made]) -> Made:
        """What `build` makes of the mask, made by the first layer that asks with this key in a forward pass."""
        if key not in self._made:
            self._made[key] = build()
        made: Made = self._made[key]
        return made

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values [b, k, s, d]; returns all so far, [b, k, S, d] (views)."""
        if layer not in self._buffers:
            shape = (self.batch_size, key.shape[1], self.max_length, key.shape[3])
            self._buffers[layer] = (key.new_zeros(shape), value.new_zeros(shape))
        keys, values = self._buffers[layer]
        begin = self.length - self._new_columns
        keys[:, :, begin : self.length] = key
        values[:, :, begin : self.length] = value
        return keys[:, :, : self.length], values[:, :, : self.length]

    def _build_mask(self, device: torch.device | str | None) -> Tensor:
        columns = torch.arange(self.length, device=device)
        queries = columns[self.length - self._new_columns :, None]
        causal = (columns <= queries)[None, None]  # [1, 1, s, S]
        if not self._is_padded:
            return causal
        assert self.starts is not None
        is_text = columns >= self.starts[:, None, None, None]  # [b, 1, 1, S]
        # A padding column attends to itself: a row of the softmax with nothing in it would be NaN and spread from there.
        return causal & (is_text | (columns == queries))
