"""Small tokenizers in the manner of well-known ones, trained on code and on made-up words of many scripts, and texts that are hard."""

from __future__ import annotations

import functools
import random
from pathlib import Path

from hypothesis import strategies as st

from megatron.data.corpora.python_stdlib import PythonStandardLibrary
from megatron.tokenizer.hf import HFTokenizer
from tools.benchmark.tokenizer_families import train_family

SCRIPTS = ((0x61, 0x7A), (0xE0, 0xFF), (0x3B1, 0x3C9), (0x430, 0x44F), (0x5D0, 0x5EA), (0x905, 0x939), (0x4E00, 0x9FA5))
ODD = [
    *("<|endoftext|>", "<|padding|>", "<|endof", "text|>", "<|begin|>", "<|im_start|>", "don't", "'LL", "'\u017f", "'"),
    *(
        " ",
        "  ",
        " " * 7,
        " " * 24,
        " " * 49,
        "\t",
        "\n",
        "\r\n",
        "\n\n  ",
        "\u00a0",
        "\u2003",
        "\u3000",
        "\u200b",
        "\u2028",
    ),
    *(
        "\x00",
        "\x1f",
        "\x7f",
        "\x85",
        "\ufeff",
        "\ufffd",
        "\ufffe",
        "\U0010ffff",
        "\ue000",
        "\u0378",
        "\u088f",
        "\U000323b0",
    ),
    *("e\u0301", "\u0301", "\u0344", "\u0958", "\u1100\u1161\u11a8", "\u212a", "\u03f4", "\u1e9e", "\u0130", "\u2126"),
    *(
        "123",
        "1" * 30,
        "\u0663",
        "\u2168",
        "\u00bd",
        "\u00b2",
        "\U0001d7d8",
        "\U0001f642",
        "\U0001f469\u200d\U0001f467",
    ),
    *("return", " self", "):", "!!!", "/*", "\u0915\u094d\u0937", "\u65e5\u672c", "a" * 40, "\u200f\u05d0"),
    *(
        "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
        "\u0e01\u0e33",
        "\u4e16\u754c\u3002",
        "\U0001f1ef\U0001f1f5",
        "\U0001f44d\U0001f3fd",
        "\r\n\r\n",
    ),
]
HARD_TEXT = st.lists(
    st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=14
).map("".join)
"""Any characters there are, unassigned ones too, half of it made of pieces that engines stumble over."""


@functools.cache
def corpus() -> tuple[str, ...]:
    """About 2 MB of code and words of many scripts, the same in every run."""
    source = random.Random(0)
    modules = list(PythonStandardLibrary(Path()).documents())[:90]
    return (*modules, *(_words(source) for _ in range(120)))


def _words(source: random.Random) -> str:
    parts = []
    first, last = source.choice(SCRIPTS)
    for _ in range(300):
        parts.append("".join(chr(source.randint(first, last)) for _ in range(source.randint(1, 4))))
        parts.append(source.choice([" ", " ", " ", ", ", "\n", " 12345 ", source.choice(ODD)]))
    return "".join(parts)


@functools.cache
def family(name: str) -> HFTokenizer:
    """The tokenizer of one of FAMILIES, of 3,000 entries or so."""
    return train_family(name, corpus(), vocab_size=3000)
