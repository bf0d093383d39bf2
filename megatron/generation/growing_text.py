"""The text of a completion while its tokens arrive: what of it is certain, and whether it holds a stop string.

A token is no unit of text: a character may be begun by one token and ended by the next, and so may a stop string. The cost of a token
does not grow with the text before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from megatron.tokenizer.base import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
PROMPT_TOKENS_SEEN = 8  # enough to know whether a space or the beginning of a character stands before the first token
INCOMPLETE_TOKENS = (
    3  # a character of UTF-8 has four bytes at most, so one that is incomplete began in the last three tokens
)


class GrowingText:
    """The text that tokens add to a prompt; the end of it is held back while it may be the beginning of a character."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._before = _end_of(prompt, tokenizer)  # tokens whose text has been given
        self._pending: list[int] = []
        self._given = 0  # characters of the pending tokens' text

    def add(self, token: int) -> str:
        """The text that is certain now and was not before."""
        self._pending.append(token)
        text = self._text()
        if not text.endswith(REPLACEMENT):
            return self._settle(len(self._pending))
        certain = self._give(text.rstrip(REPLACEMENT))
        return certain + self._settle(self._settled())

    def rest(self) -> str:
        """What is still held back, when no token follows."""
        return self._settle(len(self._pending))

    def _settled(self) -> int:
        """How many of the pending tokens cannot be part of the character that is incomplete, where there are too many for one."""
        count = len(self._pending)
        borders = range(count - INCOMPLETE_TOKENS, count) if count > INCOMPLETE_TOKENS else ()
        # A run of bytes that is no text may be shown otherwise in two parts than as a whole.
        return next((border for border in borders if self._is_border(border)), 0)

    def _is_border(self, count: int) -> bool:
        return self._text() == self._text(count) + self._tokenizer.detokenize(self._pending[count:])

    def _text(self, count: int | None = None) -> str:
        return self._tokenizer.continuation(self._before, self._pending[:count])

    def _give(self, text: str) -> str:
        """What `text` of pending tokens has beyond that which was given."""
        new = text[self._given :]
        self._given += len(new)
        return new

    def _settle(self, count: int) -> str:
        """Give all the text of the first pending tokens, which then are pending no more."""
        text = self._text(count)
        new, beyond = text[self._given :], max(self._given - len(text), 0)
        self._before, self._pending = self._pending[:count] or self._before, self._pending[count:]
        self._given = beyond
        return new


def _end_of(prompt: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """The last tokens of a prompt, beginning with a whole character: some types turn all bytes beside an incomplete one into U+FFFD."""
    sizes = range(PROMPT_TOKENS_SEEN, PROMPT_TOKENS_SEEN + INCOMPLETE_TOKENS + 1)
    ends = [list(prompt[-size:]) for size in sizes]
    return next((end for end in ends if not tokenizer.detokenize(end).startswith(REPLACEMENT)), ends[-1])


class TextUntil:
    """Text up to the first of some stop strings; an end that may be the beginning of one is held back. found: it is there."""

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self._stop_strings = tuple(stop_strings)
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """The text that is certain now to stand before any stop string, and was not before."""
        text = self._held + text
        end = first_stop(text, self._stop_strings)
        self.found = end is not None
        if end is None:
            end = len(text) - self._possible_beginning(text)
        self._held = text[end:]
        return text[:end]

    def rest(self) -> str:
        """What is still held back, when no text follows; nothing after a stop string."""
        return "" if self.found else self._held

    def _possible_beginning(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        longest = max(map(len, self._stop_strings), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stop_strings)), 0)


def first_stop(text: str, stop_strings: Sequence[str]) -> int | None:
    """Where the first of the stop strings begins in `text`; None when it holds none."""
    return min((at for at in map(text.find, stop_strings) if at >= 0), default=None)
