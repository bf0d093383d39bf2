"""A corpus for timing tokenizers, the same in every run: code of the standard library, and made-up text in many scripts.

Words follow Zipf's law, as those of real text do, and there is always a new one: an engine that remembers words gains what it would
gain on real text, no more. A few documents hold what engines stumble over: decomposed accents, special tokens, long runs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from megatron.data.corpora.python_stdlib import PythonStandardLibrary

SCRIPTS = (
    *((0x61, 0x7A), (0x61, 0x7A), (0x61, 0x7A), (0xE0, 0xF6), (0x3B1, 0x3C9), (0x430, 0x44F), (0x5D0, 0x5EA)),
    *((0x627, 0x64A), (0x905, 0x939), (0xE01, 0xE2E), (0x3041, 0x3096), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3)),
)
"""First and last letter; Latin letters three times as often as the others."""
LEXICON = 30_000
BETWEEN = (*[" "] * 30, *[", "] * 3, *[". "] * 2, "\n", "\n\n", " - ", ' "', '" ', " (", ") ", "'s ", "'ll ")
ODDITIES = (
    "e\u0301a",
    "<|endoftext|>",
    " " * 40,
    "\U0001f469\u200d\U0001f467",
    "\u088f",
    "=" * 60,
    "\t\t\t",
    "\u2168\u00bd",
)


def write_corpus(path: Path, *, megabytes: float) -> int:
    """Write JSON lines with `megabytes` of text, or a little more; the bytes of the text."""
    source = random.Random(0)
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        for text in _texts(source):
            file.write(json.dumps({"text": text}, ensure_ascii=source.random() < 0.5) + "\n")
            written += len(text.encode("utf-8"))
            if written >= megabytes * 1e6:
                return written
    raise AssertionError("there is always another text")


def read_texts(path: Path) -> list[str]:
    """The texts of all lines."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def _texts(source: random.Random) -> Iterator[str]:
    """Half code, half words, without end."""
    modules = list(PythonStandardLibrary(Path()).documents())
    blocks = [block for module in modules for block in module.split("\n\n\n")]
    lexicons = [_lexicon(source, *script) for script in SCRIPTS]
    weights = list(accumulate(1 / (rank + 3) for rank in range(LEXICON)))
    while True:
        yield modules.pop() if modules else "\n\n\n".join(source.choices(blocks, k=12))
        for _ in range(4):
            yield _prose(source, source.choice(lexicons), weights)


def _lexicon(source: random.Random, first: int, last: int) -> list[str]:
    longest = 9 if last - first < 100 else 3
    return [
        "".join(chr(source.randint(first, last)) for _ in range(source.randint(1, longest))) for _ in range(LEXICON)
    ]


def _prose(source: random.Random, lexicon: list[str], weights: list[float]) -> str:
    count = source.randint(50, 1200)
    words = source.choices(lexicon, cum_weights=weights, k=count)
    for _ in range(count // 40):
        words[source.randrange(count)] = str(source.getrandbits(source.randint(1, 40)))
        words[source.randrange(count)] = f"{source.choice(words)}{source.choice(lexicon)}"
    if source.random() < 0.02:
        words[source.randrange(count)] = source.choice(ODDITIES)
    between = source.choices(BETWEEN, k=count)
    return "".join(part for pair in zip(words, between, strict=True) for part in pair)
