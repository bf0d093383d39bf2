"""From prompts in text to completions in text: tokenise, decode until the end-of-document token, turn tokens back into text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from megatron.generation.decode import Decoder, DecodingStep
from megatron.generation.sampling import GREEDY, SamplingSettings, draws_of
from megatron.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class CompletionSettings:
    """How prompts are completed. seed: of the random numbers, which also depend on the number of a sample; keep_logits: of every token."""

    maximum_tokens: int
    sampling: SamplingSettings = GREEDY
    seed: int = 0
    keep_logits: bool = False


@dataclass
class Completion:
    """One prompt and what followed it. finished: the model ended the document by itself; logits: fp32 [v] for each token."""

    context: str
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finished: bool = False
    seconds: float = 0.0
    logits: list[Tensor] = field(default_factory=list)

    def record(self, *, with_logits: bool) -> dict[str, object]:
        """What is written to `sample_output_file`: one JSON object, with the keys GPT-NeoX uses."""
        values: dict[str, object] = {
            "context": self.context,
            "text": self.text,
            "length": len(self.tokens),
            "finished": self.finished,
            "duration_seconds": round(self.seconds, 3),
        }
        if with_logits:
            values["logits"] = [logits.tolist() for logits in self.logits]
        return values


def complete(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    settings: CompletionSettings,
    *,
    first_sample: int = 0,
) -> list[Completion]:
    """Complete prompts, in as few batches as give each the tokens it would get alone. first_sample: number of the first in the run.

    An empty prompt stands for the beginning of a document (the end-of-document token). Raises DataError for a prompt that is too long.
    """
    started = time.perf_counter()
    completions = [Completion(prompt) for prompt in prompts]
    encoded = [tokenizer.tokenize(prompt) or [tokenizer.eod] for prompt in prompts]
    decoder.check_prompts(encoded)
    for rows in _batches([len(tokens) for tokens in encoded], room=decoder.max_positions - settings.maximum_tokens):
        batch = [completions[row] for row in rows]
        for step in decoder.steps(
            [encoded[row] for row in rows],
            maximum_tokens=settings.maximum_tokens,
            sampling=settings.sampling,
            draws=[draws_of(settings.seed, first_sample + row) for row in rows],
            keep_logits=settings.keep_logits,
        ):
            _take(step, batch, end=tokenizer.eod)
            if all(completion.finished for completion in batch):
                break
    for completion, prompt_tokens in zip(completions, encoded, strict=True):
        completion.text = tokenizer.continuation(prompt_tokens, completion.tokens)
        completion.seconds = time.perf_counter() - started
    return completions


def _batches(lengths: Sequence[int], *, room: int) -> list[list[int]]:
    """Row numbers that are decoded together: all that leave room for every token wanted; the others by length.

    A batch ends when its longest row reaches the last position, so a longer neighbour would cut a row short.
    """
    together: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        together.setdefault(max(length, room), []).append(row)
    return list(together.values())


def _take(step: DecodingStep, completions: Sequence[Completion], *, end: int) -> None:
    """Add a step's tokens to the completions that have not ended."""
    for row, token in enumerate(step.tokens.tolist()):
        completion = completions[row]
        if completion.finished:
            continue
        completion.finished = token == end
        if not completion.finished:
            completion.tokens.append(token)
            if step.logits is not None:
                completion.logits.append(step.logits[row].cpu())
