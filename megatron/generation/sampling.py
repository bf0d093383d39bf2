"""From logits to the next token: temperature, top-k, top-p (Holtzman et al. 2020, nucleus sampling).

Shapes: `b` rows, `v` vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Draws = random.Random
"""The random numbers of one sample: it draws the same whatever it is decoded beside, and on whatever layout."""


@dataclass(frozen=True)
class SamplingSettings:
    """How to choose: temperature 0 is greedy; top_k 0 and top_p 0 (or 1) switch that filter off; both may be on (k first)."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 0.0


GREEDY = SamplingSettings()
COLDEST = 1e-30
"""The least temperature that logits are divided by: less would make them infinite."""


def draws_of(seed: int, sample: int) -> Draws:
    """The random numbers of sample number `sample` of a run."""
    return Draws(f"{seed} {sample}")


def choose_tokens(logits: Tensor, settings: SamplingSettings, draws: Sequence[Draws]) -> Tensor:
    """One token a row, int64 [b], from `logits` [b, v] and one random number of each row's draws (none when greedy)."""
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    scaled = logits.float() / max(settings.temperature, COLDEST)
    if settings.top_k > 0:
        scaled = keep_top_k(scaled, settings.top_k)
    if 0 < settings.top_p < 1:
        scaled = keep_top_p(scaled, settings.top_p)
    uniform = torch.tensor([row.random() for row in draws], dtype=torch.float64, device=logits.device)
    return at_quantile(scaled.softmax(dim=-1), uniform)


def at_quantile(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The first token of each row at which the sum of `probabilities` [b, v] exceeds `uniform` [b], numbers from 0 up to 1.

    Summed in fp64, as 50,000 fp32 numbers lose the least likely ones; never a token of probability 0.
    """
    sums = probabilities.double().cumsum(dim=-1)
    wanted = uniform[:, None] * sums[:, -1:]
    chosen = torch.searchsorted(sums, wanted, right=True)[:, 0]
    # Sums of a GPU are rounded apart, and may rise behind the last token that has a probability. NaN finds a place behind all tokens.
    last = (probabilities > 0).long().mul(torch.arange(probabilities.shape[-1], device=chosen.device)).amax(dim=-1)
    return torch.minimum(chosen, last)


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
