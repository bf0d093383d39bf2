"""{% generation %} ... {% endgeneration %}: the blocks by which a chat template itself marks what the model generates.

While a template is rendered each block is put between two characters that Unicode keeps for such use and no text may have
(noncharacters), which are taken out afterwards: so it is known where the blocks are, whatever the template does around them.
"""

from __future__ import annotations

import re

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from megatron.data.inputs.records import BadRecord

BEGIN, END = "\ufdd0", "\ufdd1"
_MARKS = re.compile(f"[{BEGIN}{END}]")
_BLOCK = re.compile(r"{%[-+]?\s*generation\s*[-+]?%}")


class GenerationBlocks(Extension):
    """The statement, for an environment: a scope of its own between the two marks."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """A block, from its first word on."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (nodes.Output([nodes.TemplateData(mark)], lineno=line) for mark in (BEGIN, END))
        return nodes.Scope([begin, *body, end], lineno=line)


def has_blocks(source: str) -> bool:
    """Whether a template marks what is generated."""
    return _BLOCK.search(source) is not None


def has_marks(text: str) -> bool:
    """Whether a text has a character that the marks are made of."""
    return _MARKS.search(text) is not None


def take_out_marks(text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A rendered text without the marks, and the spans [begin, end) of its characters that were between them.

    Raises BadRecord for a block without an end, which `break` or `continue` have left, or without a beginning, which has been cut off.
    """
    parts, spans, begins = _MARKS.split(text), list[tuple[int, int]](), list[int]()
    length = len(parts[0])
    for mark, part in zip(_MARKS.findall(text), parts[1:], strict=True):
        if mark == BEGIN:
            begins.append(length)
        elif begins:
            spans.append((begins.pop(), length))
        else:
            raise BadRecord("makes the chat template write half of a {% generation %} block: correct the template.")
        length += len(part)
    if begins:
        raise BadRecord("makes the chat template leave a {% generation %} block before its end: correct the template.")
    return "".join(parts), tuple(spans)
