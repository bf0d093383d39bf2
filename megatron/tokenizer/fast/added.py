"""Tokens added to a vocabulary: found in a text by their own text, before any piece of it is merged.

`tokenizers` looks for them twice: for those that are not `normalized` in the text as it is, then for the others in what is left, after
it is normalised. Each time the first that begins wins, and the longest of those that begin at one place.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from megatron.tokenizer.fast.merges import Unfit


@dataclass(frozen=True)
class AddedTokens:
    """ids: of the added tokens by their text; searches: what to look for, one search after the other; together: whether a single search
    for all of them would find the same; awkward: texts of tokens that swallow spaces or stand only between words, whose documents
    are left to `tokenizers`."""

    ids: dict[str, int]
    together: bool
    searches: tuple[re.Pattern[str], ...]
    awkward: re.Pattern[str] | None

    def cut(self, text: str) -> Iterator[str | int]:
        """The text between added tokens, and the ids of the tokens, in order; no empty text."""
        return self._cut(text, self.searches)

    def _cut(self, text: str, searches: tuple[re.Pattern[str], ...]) -> Iterator[str | int]:
        if not searches:
            if text:
                yield text
            return
        first, *others = searches
        end = 0
        for match in first.finditer(text):
            yield from self._cut(text[end : match.start()], tuple(others))
            yield self.ids[match[0]]
            end = match.end()
        yield from self._cut(text[end:] if end else text, tuple(others))


def read_added_tokens(entries: list[dict[str, Any]], *, nfc: bool) -> AddedTokens:
    """From the `added_tokens` of a tokenizer.json; nfc: whether texts are normalised. Raises Unfit for what is not known."""
    known = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}
    for entry in entries:
        if entry.keys() != known or not entry["content"]:
            raise Unfit("it has an added token of an unknown kind")
        if nfc and not unicodedata.is_normalized("NFC", entry["content"]):
            raise Unfit(f'its added token "{entry["content"]}" is not in NFC')
    groups = [[entry["content"] for entry in entries if entry["normalized"] is kind] for kind in (False, True)]
    awkward = [entry["content"] for entry in entries if entry["single_word"] or entry["lstrip"] or entry["rstrip"]]
    return AddedTokens(
        ids={entry["content"]: entry["id"] for entry in entries},
        # Tokens of the two searches cannot overlap in any text when they have no character in common.
        together=set("".join(groups[0])).isdisjoint("".join(groups[1])),
        searches=tuple(_any_of(group) for group in groups if group),
        awkward=_any_of(awkward) if awkward else None,
    )


def _any_of(texts: list[str]) -> re.Pattern[str]:
    # Of alternatives a pattern takes the first that fits: the longest has to come first.
    return re.compile("|".join(map(re.escape, sorted(set(texts), key=len, reverse=True))))
