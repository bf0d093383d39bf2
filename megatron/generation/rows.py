"""One row of a batch that is being decoded: takes its tokens, finds its end, and becomes a completion."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from megatron.generation.growing_text import GrowingText, TextUntil, first_stop
from megatron.generation.model import computes_nan
from megatron.tokenizer.base import Tokenizer

FinishReason = Literal["eod", "stop", "length", "context", "interrupted"]


@dataclass
class Completion:
    """A prompt and what followed it.

    tokens: without those of `ending`, which ended it: the end of a document, a stop token, or what a stop string consists of; a token in
    which text ends and a stop string begins is one of `tokens`. text: up to a stop string. log_probabilities: natural, one for each of `tokens`, of the model itself, whatever the temperature and
    the filters. finish_reason: `eod` or `stop` (a stop string or token), or, where it was cut, `length` (as many tokens as were wanted),
    `context` (the model reads no more) or `interrupted`. seconds: since its batch began. logits: fp32 [v] for each token.
    """

    prompt_tokens: tuple[int, ...]
    tokens: list[int] = field(default_factory=list)
    ending: list[int] = field(default_factory=list)
    text: str = ""
    log_probabilities: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    seconds: float = 0.0
    logits: list[Tensor] = field(default_factory=list)
    prompt: str = ""

    @property
    def finished(self) -> bool:
        """It has reached its own end; it was not cut."""
        return self.finish_reason in ("eod", "stop")


class Row:
    """A prompt and its tokens so far. new_text: what the last token made certain, where the text is followed (else always empty).

    stop_strings and stop_tokens end the row; follow_text: also follow it when no stop string asks for that.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        *,
        stop_strings: Sequence[str] = (),
        stop_tokens: Sequence[int] = (),
        follow_text: bool = False,
    ) -> None:
        self.new_text = ""
        self.ended = False
        self._tokenizer, self._stop_strings, self._stop_tokens = tokenizer, tuple(stop_strings), frozenset(stop_tokens)
        self._completion = Completion(tuple(prompt))
        self._growing = GrowingText(tokenizer, prompt) if stop_strings or follow_text else None
        self._until = TextUntil(stop_strings)
        self._started = time.perf_counter()

    def take(self, token: int, log_probability: float, logits: Tensor | None = None) -> None:
        """The next token, the model's log-probability of it, and the logits [v] it was chosen from; nothing once the row has ended.

        Raises DataError where the model computes NaN: a token chosen from that means nothing.
        """
        self.new_text = ""
        if self.ended:
            return
        if math.isnan(log_probability):
            raise computes_nan("the next token")
        done = self._completion
        if token == self._tokenizer.eod or token in self._stop_tokens:
            done.ending = [token]
            self._end("eod" if token == self._tokenizer.eod else "stop")
            return
        done.tokens.append(token)
        done.log_probabilities.append(log_probability)
        if logits is not None:
            done.logits.append(logits)
        if self._growing is not None:
            self.new_text = self._until.add(self._growing.add(token))
            if self._until.found:
                self._end("stop")

    def completion(self, otherwise: FinishReason) -> Completion:
        """What the row has become. otherwise: why it is over, when it has not ended by itself; new_text then is what was held back."""
        if not self.ended:
            self.new_text = ""
            self._end(otherwise)
        return self._completion

    def _end(self, reason: FinishReason) -> None:
        self.ended = True
        done = self._completion
        done.finish_reason = reason
        done.seconds = time.perf_counter() - self._started
        if self._growing is not None and not self._until.found:
            self.new_text += self._until.add(self._growing.rest())
            self.new_text += self._until.rest()
        # Once more from all tokens, as the tokenizer turns them into text together.
        done.text = self._text(len(done.tokens))
        stop = first_stop(done.text, self._stop_strings)
        if stop is not None:
            done.finish_reason = "stop"
            self._cut(done.text[:stop])

    def _cut(self, text: str) -> None:
        """Keep `text`, and the fewest tokens that hold all of it."""
        done = self._completion
        count = len(done.tokens)
        while count and self._text(count - 1).startswith(text):
            count -= 1
        done.text, done.ending = text, done.tokens[count:] + done.ending
        del done.tokens[count:], done.log_probabilities[count:], done.logits[count:]

    def _text(self, count: int) -> str:
        done = self._completion
        return self._tokenizer.continuation(done.prompt_tokens, done.tokens[:count])
