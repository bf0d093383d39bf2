"""Autoregressive decoding of a batch of prompts, one token a row and step, with cached keys and values.

Prompts of different lengths are padded on the left, as `megatron.model.cache` explains. Every tensor-parallel rank runs this with the
same arguments and draws the same tokens: the logits are gathered first, and the random generator is seeded alike.

Shapes: `b` rows, `n` longest prompt, `s` columns so far, `v` vocabulary without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.errors import DataError
from megatron.generation.sampling import SamplingSettings, choose_tokens
from megatron.model.cache import KeyValueCache
from megatron.model.sequential import SequentialModel
from megatron.mpu.collectives import all_gather
from megatron.mpu.groups import Group


@dataclass(frozen=True)
class DecodingStep:
    """What one step gave each row: the tokens [b] and the logits [b, v] (fp32) they were chosen from."""

    tokens: Tensor
    logits: Tensor


class Decoder:
    """A model with everything decoding needs.

    vocab_size: tokens that may be chosen, those of the tokenizer; max_positions: the longest text the model can read; recompute: do without
    the cache and run the whole text for every token (slow; for comparison).
    """

    def __init__(
        self,
        model: SequentialModel,
        *,
        group: Group,
        device: torch.device,
        vocab_size: int,
        max_positions: int,
        settings: SamplingSettings,
        seed: int,
        recompute: bool = False,
    ) -> None:
        self._model = model.eval()
        self._group = group
        self._device = device
        self._vocab_size = vocab_size
        self.max_positions = max_positions
        self._settings = settings
        self._recompute = recompute
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def steps(self, prompts: Sequence[Sequence[int]], *, maximum_tokens: int) -> Iterator[DecodingStep]:
        """Up to `maximum_tokens` steps, fewer when the longest row reaches `max_positions`.

        Raises DataError for an empty prompt and for one that leaves no room for a single token.
        """
        longest = self.check_prompts(prompts)
        columns, starts = self._left_padded(prompts, longest)
        length = min(longest + maximum_tokens, self.max_positions)
        cache = KeyValueCache(batch_size=len(prompts), max_length=length, starts=starts)
        new = columns
        for _ in range(length - longest):
            if self._recompute:
                cache, new = KeyValueCache(batch_size=len(prompts), max_length=length, starts=starts), columns
            step = self._step(new, cache)
            yield step
            new = step.tokens[:, None]
            columns = torch.cat([columns, new], dim=1)

    @torch.no_grad()
    def _step(self, new: Tensor, cache: KeyValueCache) -> DecodingStep:
        positions = cache.next_position_ids(new.shape[1], device=self._device)
        local = self._model(new, positions, cache)[:, -1]
        logits = all_gather(local, self._group, dim=-1)[:, : self._vocab_size].float()
        return DecodingStep(choose_tokens(logits, self._settings, self._generator), logits)

    def _left_padded(self, prompts: Sequence[Sequence[int]], longest: int) -> tuple[Tensor, Tensor]:
        """Columns int64 [b, n] and the column at which each row begins, int64 [b]; what the padding holds is never looked at."""
        rows = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        starts = [longest - len(prompt) for prompt in prompts]
        return torch.tensor(rows, device=self._device), torch.tensor(starts, device=self._device)

    def check_prompts(self, prompts: Sequence[Sequence[int]]) -> int:
        """The length of the longest prompt. Raises DataError for an empty one and for one that leaves no room for a single token."""
        longest = max(map(len, prompts))
        if min(map(len, prompts)) == 0:
            raise DataError("a prompt has no tokens: give at least one character, or generate unconditionally")
        if longest >= self.max_positions:
            raise DataError(
                f"a prompt has {longest} tokens, and the model reads at most {self.max_positions} (max_position_embeddings): "
                f"shorten it to {self.max_positions - 1} tokens, so that there is room for one more"
            )
        return longest
