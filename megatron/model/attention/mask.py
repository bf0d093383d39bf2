"""Which keys a query sees: those up to itself, or of them the latest ones only (sliding windows).

Shapes: `s` queries, `S` keys; the queries stand at the last s of the S places.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def causal_mask(queries: int, keys: int, *, window: int | None = None, device: torch.device) -> Tensor:
    """bool [s, S], true where a query sees a key: itself and what came before, of which it sees the `window` latest (None = all)."""
    behind = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
    return behind >= 0 if window is None else (behind >= 0) & (behind < window)


@lru_cache(maxsize=2)
def window_bias(length: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[s, s] to be added to scores: 0 where a query sees a key, -infinity elsewhere.

    One tensor serves all layers: attention keeps its mask for the backward pass, and would keep one for each. It is an ordinary tensor
    even when first needed in inference mode, so that training may use it later.
    """
    with torch.inference_mode(False), torch.no_grad():
        seen = causal_mask(length, length, window=window, device=device)
        return torch.zeros(length, length, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))
