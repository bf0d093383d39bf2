"""Characters whose documents are left to `tokenizers`, because an engine, or Python, may know less of them.

Libraries carry the tables of different versions of Unicode. `tokenizers` cuts text by version 17; Python's own version decides here
whether NFC leaves a text alone, and knows nothing of characters that were assigned later. Characters of one version keep what they
are in the next, so that nothing else can differ.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterator

UNICODE_17 = (
    *((0x88F, 0x88F), (0xC5C, 0xC5C), (0xCDC, 0xCDC), (0xA7CE, 0xA7CF), (0xA7D2, 0xA7D2), (0xA7D4, 0xA7D4)),
    *((0xA7F1, 0xA7F1), (0x10940, 0x10959), (0x10EC5, 0x10EC7), (0x11DB0, 0x11DDB), (0x11DE0, 0x11DE9)),
    *((0x16EA0, 0x16EB8), (0x16EBB, 0x16ED3), (0x16FF2, 0x16FF6), (0x187F8, 0x187FF), (0x18D09, 0x18D1E)),
    *((0x18D80, 0x18DF2), (0x1E6C0, 0x1E6DE), (0x1E6E0, 0x1E6E2), (0x1E6E4, 0x1E6E5), (0x1E6E7, 0x1E6ED)),
    *((0x1E6F0, 0x1E6F4), (0x1E6FE, 0x1E6FF), (0x2B73A, 0x2B73F), (0x2CEA2, 0x2CEAD), (0x323B0, 0x33479)),
)
"""The letters and numbers that version 17 of Unicode added: first and last of each range."""

SURROGATES = (0xD800, 0xDFFF)
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_BASIC = 0x10000


def build_search(unknown: tuple[tuple[int, int], ...], *, nfc: bool) -> Callable[[str], bool]:
    """A function that says whether a text holds a character of the ranges `unknown`, or half of a surrogate pair.

    nfc: also one that this Python does not know.
    """
    basic = {code for code in _codes((SURROGATES, *unknown)) if code < _BASIC}
    beyond = {chr(code) for code in _codes(unknown) if code >= _BASIC}
    if nfc:
        basic |= {code for code in range(_BASIC) if _is_unassigned(chr(code))}
    # Characters beyond the first 65,536 are looked up one by one: a class with many ranges of them is slow for all the others.
    pattern = re.compile(f"[{''.join(re.escape(chr(code)) for code in sorted(basic))}]")

    def holds_unknown(text: str) -> bool:
        if pattern.search(text):
            return True
        return any(
            character in beyond or (nfc and _is_unassigned(character)) for character in set(_BEYOND.findall(text))
        )

    return holds_unknown


def _is_unassigned(character: str) -> bool:
    return unicodedata.category(character) == "Cn"


def _codes(ranges: tuple[tuple[int, int], ...]) -> Iterator[int]:
    for first, last in ranges:
        assert first <= last <= sys.maxunicode
        yield from range(first, last + 1)
