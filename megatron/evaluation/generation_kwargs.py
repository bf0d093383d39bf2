"""What a task of lm-eval says of generation, its `generation_kwargs`, as our settings; the meaning is that of lm-eval's own `hf` model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from megatron.errors import DataError
from megatron.generation.sampling import GREEDY, SamplingSettings

DEFAULT_MAXIMUM_TOKENS = 256
DEFAULT_TOP_K = 50
"""What transformers' `generate` samples from when nothing is said."""
WITHOUT_EFFECT: Mapping[str, Any] = {"num_beams": 1, "repetition_penalty": 1.0, "use_cache": True}
"""Further settings of transformers' `generate` that a task may name, as long as they change nothing."""


@dataclass(frozen=True)
class Generation:
    """How a request is answered. until: strings which end the answer and are no part of it; an empty one is not among them."""

    maximum_tokens: int
    until: tuple[str, ...]
    sampling: SamplingSettings


def generation_of(
    task: str, kwargs: Mapping[str, Any], *, end_of_document: str = "", max_positions: int | None = None
) -> Generation:
    """The settings of one request of a task. end_of_document: the text of the token that ends a document, which ends an answer as well;
    max_positions: tokens that the model reads, of which a question needs one.

    Raises DataError, naming the task, for a setting that is not known here, or beyond what it may be.
    """
    try:
        return _generation(kwargs, end_of_document, max_positions)
    except (TypeError, ValueError, DataError) as error:
        raise DataError(f'the task "{task}" cannot be run: {error} (its generation_kwargs)') from error


def _generation(kwargs: Mapping[str, Any], end_of_document: str, max_positions: int | None) -> Generation:
    rest: dict[str, Any] = dict(normalize_gen_kwargs(dict(kwargs), DEFAULT_MAXIMUM_TOKENS))
    until = [stop for stop in handle_stop_sequences(rest.pop("until"), eos=end_of_document) if stop]
    if not all(isinstance(stop, str) for stop in until):
        raise DataError(f"until is {until!r}: it must be a text, or a list of texts")
    maximum_tokens = rest.pop("max_gen_toks")
    if maximum_tokens < 1:
        raise DataError(f"answers of {maximum_tokens} tokens are wanted (max_gen_toks): it must be 1 or more")
    if max_positions is not None and maximum_tokens >= max_positions:
        raise DataError(
            f"answers of {maximum_tokens} tokens (max_gen_toks) leave no room for a question, as the model reads {max_positions} tokens "
            "(max_position_embeddings); make max_gen_toks smaller"
        )
    sampling = _sampling(rest)
    for name, value in rest.items():
        if name not in WITHOUT_EFFECT or value != WITHOUT_EFFECT[name]:
            raise DataError(
                f'"{name}" is set to {value!r}, which does not exist here: remove it; until, max_gen_toks, do_sample, temperature, top_k and '
                "top_p are there"
            )
    return Generation(maximum_tokens, tuple(until), sampling)


def _sampling(rest: dict[str, Any]) -> SamplingSettings:
    """Take the settings of sampling out of `rest`."""
    do_sample, temperature = rest.pop("do_sample"), float(rest.pop("temperature", 0.0))
    top_k, top_p = int(rest.pop("top_k", DEFAULT_TOP_K)), float(rest.pop("top_p", 1.0))
    if not do_sample or temperature == 0:
        return GREEDY
    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise DataError(
            f"temperature is {temperature}, top_k {top_k} and top_p {top_p}: they must be 0 or more, 0 (off) or more, and above 0 up to 1"
        )
    return SamplingSettings(temperature, top_k, top_p)
