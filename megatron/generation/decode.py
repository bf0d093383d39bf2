"""Autoregressive decoding of a batch of prompts, one token a row and step, with cached keys and values.

Prompts of different lengths are padded on the left, as `megatron.model.cache` explains. Every rank of a model runs this with the same
arguments. Those of the last pipeline stage see the same logits, choose the same tokens, and tell the other stages.

Shapes: `b` rows, `n` longest prompt, `s` columns so far, `v` vocabulary without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.errors import DataError
from megatron.generation.model import InferenceModel
from megatron.generation.sampling import Draws, SamplingSettings, choose_tokens
from megatron.model.cache import KeyValueCache


@dataclass(frozen=True)
class DecodingStep:
    """What one step gave each row, on every rank.

    log_probabilities: fp32 [b], of the chosen tokens by the model itself, whatever the temperature and the filters; logits: fp32 [b, v]
    they were chosen from, None unless they were asked for.
    """

    tokens: Tensor  # int64 [b]
    log_probabilities: Tensor
    logits: Tensor | None = None


class Decoder:
    """A model and what there is to know of it to decode.

    vocab_size: tokens that may be chosen, those of the tokenizer; max_positions: the longest text the model can read; recompute: do without
    the cache and run the whole text for every token (slow; for comparison).
    """

    def __init__(self, model: InferenceModel, *, vocab_size: int, max_positions: int, recompute: bool = False) -> None:
        self.model = model
        self.vocab_size = vocab_size
        self.max_positions = max_positions
        self._recompute = recompute

    @torch.no_grad()
    def steps(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        maximum_tokens: int,
        sampling: SamplingSettings,
        draws: Sequence[Draws],
        keep_logits: bool = False,
    ) -> Iterator[DecodingStep]:
        """Up to `maximum_tokens` steps, fewer when the longest row reaches `max_positions`. draws: each row's random numbers.

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
            step = self._step(new, cache, sampling, draws, keep_logits=keep_logits)
            yield step
            new = step.tokens[:, None]
            if self._recompute:
                columns = torch.cat([columns, new], dim=1)

    def check_prompts(self, prompts: Sequence[Sequence[int]]) -> int:
        """The length of the longest prompt. Raises DataError for an empty one and for one that leaves no room for a single token."""
        longest = max(map(len, prompts))
        if min(map(len, prompts)) == 0:
            raise DataError("a prompt has no tokens: give at least one character, or generate unconditionally")
        if longest >= self.max_positions:
            raise DataError(too_long("a prompt", longest, self.max_positions))
        return longest

    def _step(
        self,
        new: Tensor,
        cache: KeyValueCache,
        sampling: SamplingSettings,
        draws: Sequence[Draws],
        *,
        keep_logits: bool,
    ) -> DecodingStep:
        rows = new.shape[0]
        hidden = self.model.hidden(new, cache.next_position_ids(new.shape[1], device=self.model.device), cache)
        # Numbers of tokens are exact in fp64, so that one message tells the other stages both.
        told = torch.empty(2, rows, dtype=torch.float64, device=self.model.device)
        logits = torch.empty(rows, self.vocab_size, device=self.model.device) if keep_logits else None
        if hidden is not None:
            logits = self.model.gathered_logits(hidden[-1], vocab_size=self.vocab_size)
            told[0] = tokens = choose_tokens(logits, sampling, draws)
            told[1] = logits.log_softmax(dim=-1).gather(-1, tokens[:, None])[:, 0]
        told = self.model.tell_all_stages(told)
        if keep_logits and logits is not None:
            logits = self.model.tell_all_stages(logits.contiguous())
        return DecodingStep(told[0].long(), told[1].float(), logits if keep_logits else None)

    def _left_padded(self, prompts: Sequence[Sequence[int]], longest: int) -> tuple[Tensor, Tensor]:
        """Columns int64 [b, n] and the column at which each row begins, int64 [b]; what the padding holds is never looked at."""
        rows = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        starts = [longest - len(prompt) for prompt in prompts]
        device = self.model.device
        return torch.tensor(rows, device=device), torch.tensor(starts, device=device)


def too_long(prompt: str, tokens: int, max_positions: int) -> str:
    """What is wrong with a prompt of so many tokens, which leaves no room for a single one more."""
    return (
        f"{prompt} has {tokens} tokens, and the model reads at most {max_positions} (max_position_embeddings): "
        f"shorten it to {max_positions - 1} tokens, so that there is room for one more"
    )
