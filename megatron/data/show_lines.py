"""Documents and samples as lines of text and styles, which say the same without colour.

    document 3 of data/mine_text_document: 9 tokens, loss on 4
           0 - Question:│·why│?⏎
           3 - Answer:│·
           5 + because│·it│·is│.

A line is a run of tokens with the same mark: the position of the first one, the mark, and the tokens between bars.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from megatron.data.show import NOT_PREDICTED, PREDICTED, WRONG, ShownToken, View
from megatron.tokenizer.base import Tokenizer

Line = list[tuple[str, str]]
"""Pieces of a line: text and style (of rich, or empty)."""

BAR = "│"
VISIBLE = {" ": "·", "\n": "⏎", "\t": "→", "\r": "␍"}
STYLES = {PREDICTED: "green", NOT_PREDICTED: "dim", WRONG: "bold red"}
LEGEND = (
    f"{PREDICTED} loss is taken on these tokens, {NOT_PREDICTED} not, {WRONG} the label is another token; "
    f"{VISIBLE[' ']} blank, {VISIBLE[chr(10)]} end of line, {VISIBLE[chr(9)]} tab, <7> token 7, which is no text alone"
)
GUTTER = 11


def lines_of(view: View, spelled: Sequence[str], *, width: int) -> Iterator[Line]:
    """The title and the tokens, as `spelled` says them, in lines of about `width` columns."""
    yield [
        (view.title, "bold"),
        (f": {len(view.tokens):,} tokens, loss on {view.predicted:,}", ""),
    ]
    line: Line = []
    used = 0
    last: ShownToken | None = None
    for token, text in zip(view.tokens, spelled, strict=True):
        columns = _columns(text) + 1
        follows = last is not None and token.mark == last.mark and token.position == last.position + 1
        if not follows or token.notes or used + columns > width or _ends_line(line):
            if line:
                yield line
            yield from ([(f"  {note}", "cyan")] for note in token.notes)
            line, used = [(f"{token.position:>8} {token.mark} ", "dim")], GUTTER
        else:
            line.append((BAR, "dim"))
        line.append((text, STYLES[token.mark]))
        used += columns
        last = token
    if line:
        yield line
    if view.padding:
        yield [(f"  padding: {view.padding:,} places without a token", "cyan")]


def spell(numbers: Sequence[int], tokenizer: Tokenizer | None, *, ids: bool = False) -> list[str]:
    """The text of each token, with white space made visible; its number in front of it with `ids`, and alone without a tokenizer."""
    if tokenizer is None:
        return [str(number) for number in numbers]
    texts = []
    before: list[int] = []
    for number in numbers:
        known = 0 <= number < tokenizer.vocab_size
        text = visible(tokenizer.continuation(before, [number])) if known else ""
        text = text if text and "\ufffd" not in text else f"<{number}>"
        texts.append(f"{number}:{text}" if ids and text != f"<{number}>" else text)
        before = [number] if known else []
    return texts


def visible(text: str) -> str:
    """Blanks, ends of lines and tabs as characters; what else cannot be printed, and would only move the cursor, as an escape."""
    return "".join(
        VISIBLE.get(char) or (char if char.isprintable() else char.encode("unicode_escape").decode()) for char in text
    )


def _ends_line(line: Line) -> bool:
    return bool(line) and VISIBLE["\n"] in line[-1][0]


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
