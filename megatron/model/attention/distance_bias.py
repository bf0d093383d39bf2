"""What scores lose with the distance between query and key (ALiBi), as a tensor that is added to them and masks them too.

It is as large as the scores of one row of a micro-batch, so all layers share one: attention keeps it for the backward pass. Where a query
does not see a key it is -infinity. It is fp32 beside half precision, but where a kernel takes no other type than that of the queries: there
the numbers of near keys, whose weights are large, stay exact, and those of far ones are off by 0.2% (bf16).

Shapes: `s` queries, `S` keys, `b` micro-batch, `n` query heads of this rank in the core of attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from megatron.model.attention.mask import causal_mask
from megatron.model.documents import Documents


@dataclass(frozen=True)
class DistanceBias:
    """slopes: what a score of each of the n heads loses for a token of distance; window: how many latest tokens a query sees, None = all."""

    slopes: tuple[float, ...]
    window: int | None = None

    def of(self, query: Tensor, made: Tensor | None, documents: Documents | None, dtype: torch.dtype) -> Tensor:
        """[b or 1, n, s, S] for queries [b, n, s, d]: what was `made` for the columns of a cache, else that of whole sequences, whose
        documents do not see each other if there are any."""
        if made is not None:
            return made.to(dtype)
        if documents is not None:
            return documents.once((self, dtype), lambda: self.where(~documents.hidden_keys(self.window), dtype))
        return _causal(self, query.shape[2], dtype, query.device)

    def where(self, seen: Tensor, dtype: torch.dtype) -> Tensor:
        """[b, n, s, S] for seen, bool [b, 1, s, S], true where a query sees a key; queries stand at the last s of the S places."""
        queries, keys = seen.shape[-2:]
        exact = exact_type(dtype)
        places = torch.arange(keys, dtype=exact, device=seen.device)
        distances = (places[keys - queries :, None] - places).masked_fill(~seen, float("inf"))  # [b, 1, s, S]
        factors = -self.slopes_on(seen.device, exact)[:, None, None]
        bias = torch.empty(len(seen), len(self.slopes), queries, keys, dtype=dtype, device=seen.device)
        return torch.mul(distances, factors, out=bias)

    def slopes_on(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """[n], copied to the device once."""
        return _slopes(self.slopes, device, dtype)


def exact_type(dtype: torch.dtype) -> torch.dtype:
    """fp32, or the type itself where it is wider: distances and slopes are multiplied, and added to scores, without rounding them before."""
    return torch.promote_types(dtype, torch.float32)


# Ordinary tensors even when first needed in inference mode, so that training may use them later. Two: for layers that need other types.
@lru_cache(maxsize=2)
def _causal(bias: DistanceBias, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return bias.where(causal_mask(length, length, window=bias.window, device=device)[None, None], dtype)


@lru_cache(maxsize=8)
def _slopes(slopes: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return torch.tensor(slopes, dtype=dtype, device=device)
