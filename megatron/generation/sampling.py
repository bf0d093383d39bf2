"""From logits to the next token: temperature, top-k, top-p (Holtzman et al. 2020, nucleus sampling).

Shapes: `b` rows, `v` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingSettings:
    """How to choose: temperature 0 is greedy; top_k 0 and top_p 0 (or 1) switch that filter off; both may be on (k first)."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 0.0


def choose_tokens(logits: Tensor, settings: SamplingSettings, generator: torch.Generator) -> Tensor:
    """One token a row, int64 [b], from `logits` [b, v]; the generator lives on the logits' device."""
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    scaled = logits.float() / settings.temperature
    if settings.top_k > 0:
        scaled = keep_top_k(scaled, settings.top_k)
    if 0 < settings.top_p < 1:
        scaled = keep_top_p(scaled, settings.top_p)
    return torch.multinomial(scaled.softmax(dim=-1), num_samples=1, generator=generator).squeeze(-1)


def keep_top_k(logits: Tensor, count: int) -> Tensor:
    """Logits with all but the `count` largest of each row set to -inf (ties with the last one stay)."""
    smallest_kept = logits.topk(min(count, logits.size(-1)), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest_kept, -torch.inf)


def keep_top_p(logits: Tensor, mass: float) -> Tensor:
    """Logits with all but the smallest set of most likely tokens whose probability reaches `mass` set to -inf."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    # A token stays while the ones before it do not reach the mass; so the first always stays.
    dropped = probabilities.cumsum(dim=-1) - probabilities >= mass
    return logits.masked_fill(dropped.scatter(-1, order, dropped), -torch.inf)
