"""A model of lm-eval that answers with ours. What it makes of a text, which tokens, windows and cuts, is what lm-eval's own `hf` model makes.

Where that model's answers depend on what is asked beside them, these do not: contexts of different lengths that end in the same tokens
when all is put together ("a b" + "c", "a" + "b c"; it reads some at the wrong place), and rows of which one begins with a special token
or goes on behind the string that ends it. With weights in half precision it rounds log-probabilities to that, unless told otherwise
(softmax_dtype); here they are fp32.

It runs on rank 0. lm-eval is slow to import, so whoever needs this module imports it late.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from megatron.errors import DataError
from megatron.evaluation.generation_kwargs import DEFAULT_MAXIMUM_TOKENS, Generation, generation_of
from megatron.evaluation.work import Wanted, Workers
from megatron.generation.complete import CompletionSettings
from megatron.generation.model import computes_nan
from megatron.generation.scoring import Scored
from megatron.log import get_logger
from megatron.tokenizer.base import Tokenizer

SECONDS_BETWEEN_REPORTS = 10.0
Pair = tuple[tuple[str, str], list[int], list[int]]
"""A context and what follows it: as texts, and the tokens of both."""

logger = get_logger(__name__)


class HarnessModel(TemplateLM):
    """max_length: tokens that the model reads at most; seed: of what tasks sample."""

    def __init__(self, workers: Workers, tokenizer: Tokenizer, *, max_length: int, seed: int = 0) -> None:
        super().__init__()
        self.max_length = max_length
        self.max_gen_toks = DEFAULT_MAXIMUM_TOKENS
        self._workers, self._tokens, self._seed = workers, tokenizer, seed
        self._special, self._end_of_document = tokenizer.special_tokens, tokenizer.detokenize([tokenizer.eod])

    @property
    def eot_token_id(self) -> int:
        """The token that ends a document, which stands for an empty context as well."""
        return self._tokens.eod

    @property
    def batch_size(self) -> int:
        """Rows that each copy of the model runs at once."""
        return self._workers.batch_size

    @property
    def tokenizer_name(self) -> str:
        """What tells requests made with this tokenizer from those made with another."""
        return f"{self._tokens.name}-{self._tokens.fingerprint()[:16]}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The tokens of a text, with the special ones that the tokenizer puts around it unless told otherwise, or the text begins with one."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self._end_of_document)
        return self._tokens.tokenize(string) if add_special_tokens else self._tokens.tokenize_plain(string)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """How likely each continuation is after its context, and whether the model would have written it. Raises DataError for an empty one."""
        for request in requests:
            if not request.args[1]:
                raise _unusable(request, "an answer to score is empty")
        answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """How likely each text is, in windows of as many tokens as the model reads, each token once."""
        windows: list[Pair] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            for window in get_rolling_token_windows(
                self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            ):
                windows.append((("", ""), *make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (log_likelihood, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += log_likelihood
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to one of the strings that end it.

        Raises DataError for settings that do not exist here, and for answers that leave no room for a question.
        """
        settings = [self._generation(request) for request in requests]
        wanted = [self._wanted(request, how) for request, how in zip(requests, settings, strict=True)]
        answers = self._workers.generate(wanted, _reporter("generated", len(wanted)))
        return [self._text(tokens, how) for tokens, how in zip(answers, settings, strict=True)]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> NoReturn:
        """Raises DataError: our tokenizers have no templates."""
        raise DataError(
            "apply_chat_template is asked for, and evaluation here has no chat templates: leave it out, "
            "or export the model (tools/ckpts) and evaluate it with lm-eval's own hf model"
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """None, when none is asked for. Raises DataError otherwise."""
        return self.apply_chat_template([]) if chat_template else None

    def _loglikelihood_tokens(self, requests: Sequence[Pair], **kwargs: Any) -> list[tuple[float, bool]]:
        """The same of tokens. What is longer than the model reads loses the beginning of its context."""
        pairs = [self._scored(*request) for request in requests]
        cut = sum(len(before) + len(after) > self.max_length + 1 for _, before, after in requests)
        if cut:
            logger.warning(
                f"{cut} of {len(requests)} requests are longer than the model reads (max_position_embeddings {self.max_length}): "
                "they lose the beginning of their context, as with lm-eval's hf model"
            )
        scores = self._workers.score(pairs, _reporter("scored", len(pairs)))
        broken = sum(math.isnan(score.log_likelihood) for score in scores)
        if broken:  # the likeliest of such choices would be the first one, and that a score
            raise computes_nan(f"{broken:,} of {len(scores):,} requests")
        return [(score.log_likelihood, score.is_greedy) for score in scores]

    def _scored(self, texts: tuple[str, str], context: list[int], continuation: list[int]) -> Scored:
        """What the model reads of a pair: one token more than its positions, as the last one is not read."""
        if not context or not 0 < len(continuation) <= self.max_length:
            raise DataError(
                f"a request cannot be scored: its context {texts[0][:60]!r} has {len(context)} tokens and its continuation "
                f"{texts[1][:60]!r} {len(continuation)}; it needs 1 or more, and 1 to {self.max_length} (max_position_embeddings)"
            )
        room = self.max_length + 1 - len(continuation)
        return Scored(tuple(context[-room:]), tuple(continuation))

    def _generation(self, request: Instance) -> Generation:
        return generation_of(
            str(request.task_name),
            request.args[1],
            end_of_document=self._end_of_document,
            max_positions=self.max_length,
        )

    def _wanted(self, request: Instance, how: Generation) -> Wanted:
        room = self.max_length - how.maximum_tokens
        tokens = self.tok_encode(request.args[0]) or [self.prefix_token_id]
        settings = CompletionSettings(how.maximum_tokens, how.sampling, seed=self._seed, stop_strings=how.until)
        return Wanted(tuple(tokens[-room:]), settings)

    def _text(self, tokens: Sequence[int], how: Generation) -> str:
        """The text of an answer by itself, without special tokens and what follows a string that ends it."""
        kept = [token for token in tokens if token not in self._special]
        text: str = postprocess_generated_text(self._tokens.detokenize(kept), list(how.until), None)
        return text


def _unusable(request: Instance, what: str) -> DataError:
    return DataError(f'the task "{request.task_name}" cannot be run: {what}')


def _reporter(done_to_them: str, total: int) -> Callable[[int], None]:
    """Says now and then how far it is, told how many more are done."""
    done, said = 0, time.monotonic()

    def report(more: int) -> None:
        nonlocal done, said
        done += more
        if time.monotonic() - said > SECONDS_BETWEEN_REPORTS:
            said = time.monotonic()
            logger.info(f"{done_to_them} {done:,} of {total:,} requests")

    return report
