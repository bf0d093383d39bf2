"""From prompts to completions: decode until every row has ended, in batches in which each row gets the tokens it would get alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.generation.decode import Decoder
from megatron.generation.rows import Completion, FinishReason, Row
from megatron.generation.sampling import GREEDY, SamplingSettings, draws_of
from megatron.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class CompletionSettings:
    """How prompts are completed. seed: of the random numbers, which also depend on the number of a sample; keep_logits: of every token.

    stop_strings: texts that end a completion, wherever the borders of tokens lie, and are no part of it; stop_tokens: ids of tokens that
    do, besides the end of a document.
    """

    maximum_tokens: int
    sampling: SamplingSettings = GREEDY
    seed: int = 0
    keep_logits: bool = False
    stop_strings: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()


def complete(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    settings: CompletionSettings,
    *,
    first_sample: int = 0,
) -> list[Completion]:
    """`complete_tokens` of texts. An empty one stands for the beginning of a document (the end-of-document token)."""
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    completions = complete_tokens(decoder, tokenizer, encoded, settings, first_sample=first_sample)
    for completion, prompt in zip(completions, prompts, strict=True):
        completion.prompt = prompt
    return completions


def complete_tokens(
    decoder: Decoder,
    tokenizer: Tokenizer,
    encoded: Sequence[Sequence[int]],
    settings: CompletionSettings,
    *,
    first_sample: int = 0,
) -> list[Completion]:
    """Complete prompts given as tokens, on every rank of the model; the completions are in the order of the prompts.

    All rows are decoded at once where that gives each the tokens it would get alone. first_sample: number of the first one in the run.
    Raises DataError, before anything is decoded, for a prompt that has no tokens or is too long.
    """
    decoder.check_prompts(encoded)
    completions: dict[int, Completion] = {}
    for numbers in _batches([len(tokens) for tokens in encoded], room=decoder.max_positions - settings.maximum_tokens):
        rows = [row_of(tokenizer, encoded[number], settings) for number in numbers]
        samples = [first_sample + number for number in numbers]
        for _ in decode_rows(decoder, [encoded[number] for number in numbers], rows, settings, samples=samples):
            pass
        reason = reason_to_stop(decoder, [encoded[number] for number in numbers], settings)
        completions.update(zip(numbers, (row.completion(reason) for row in rows), strict=True))
    return [completions[number] for number in range(len(encoded))]


def row_of(
    tokenizer: Tokenizer, prompt: Sequence[int], settings: CompletionSettings, *, follow_text: bool = False
) -> Row:
    """A row that ends as the settings say."""
    return Row(
        tokenizer,
        prompt,
        stop_strings=settings.stop_strings,
        stop_tokens=settings.stop_tokens,
        follow_text=follow_text,
    )


def decode_rows(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    settings: CompletionSettings,
    *,
    samples: Sequence[int],
) -> Iterator[None]:
    """Decode one batch; after each step `rows` have taken their tokens. Over when all have ended, or no step is left.

    samples: their numbers in the run, on which their random numbers depend. All ranks of the model stop reading at the same step.
    """
    for step in decoder.steps(
        prompts,
        maximum_tokens=settings.maximum_tokens,
        sampling=settings.sampling,
        draws=[draws_of(settings.seed, sample) for sample in samples],
        keep_logits=settings.keep_logits,
    ):
        logits = [None] * len(rows) if step.logits is None else step.logits.cpu()
        for row, *taken in zip(rows, step.tokens.tolist(), step.log_probabilities.tolist(), logits, strict=True):
            row.take(*taken)
        yield
        if all(row.ended for row in rows):
            return


def reason_to_stop(decoder: Decoder, prompts: Sequence[Sequence[int]], settings: CompletionSettings) -> FinishReason:
    """Why the rows of one batch are over that have not ended by themselves."""
    room = decoder.max_positions - max(map(len, prompts))
    return "length" if settings.maximum_tokens <= room else "context"


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The tokens of a prompt; of one without any, the end-of-document token, after which a document begins."""
    return tokenizer.tokenize(prompt) or [tokenizer.eod]


def _batches(lengths: Sequence[int], *, room: int) -> list[list[int]]:
    """Row numbers that are decoded together: all that leave room for every token wanted; the others by length.

    A batch ends when its longest row reaches the last position, so a longer neighbour would cut a row short.
    """
    together: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        together.setdefault(max(length, room), []).append(row)
    return list(together.values())
