"""What the complaints of the YAML parser mean: one function a kind of mistake, which points at where it was made and says what to write.

Each takes the parser's marks (where it could not go on, and where that began) and the lines of the text; None leaves the word to the
next rule. Lines and columns count from 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import yaml

_CLOSING = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class Spot:
    """Where to point, counted from 0, and the sentence."""

    line: int
    column: int
    sentence: str
    width: int | None = 1


def _tab(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    return Spot(mark.line, mark.column, "YAML does not allow tabs here; use spaces")


def _reserved(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot | None:
    character = _character(mark, lines)
    if character == "\t":
        return _tab(mark, context, lines)
    return Spot(mark.line, mark.column, f'a value cannot begin with {character}; write it in quotes: "{character}..."')


def _reserved_before(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    """`|`, `>` and `!` announce texts over several lines and tags; the parser points at what follows them."""
    column = max((lines[mark.line].rfind(character, 0, mark.column) for character in "|>!"), default=mark.column)
    character = lines[mark.line][column]
    sentence = f"{character} has a meaning of its own before a value; remove it, or write the value in quotes"
    return Spot(mark.line, column, sentence)


def _after_the_end(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    sentence = "everything is closed already before this; remove it, or correct the brackets and quotes above"
    return Spot(mark.line, mark.column, sentence, None)


def _bracket_or_comma(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    """Inside braces or brackets: they are never closed, or a comma is missing in front of the mark."""
    opened = _character(context, lines)
    closing = _CLOSING.get(opened, "}")
    found = _character(mark, lines)
    if found in ("", "}", "]"):
        return Spot(context.line, context.column, f'this {opened} is never closed; add the missing "{closing}"')
    key = _key_before(mark, lines)
    return Spot(mark.line, key, f'a "," is missing before this; add it, or the "{closing}" that is missing there', None)


def _no_value(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    found = _character(mark, lines)
    return Spot(
        mark.line, mark.column, f'a value is missing before this "{found}"; add it, or close what is still open'
    )


def _end_of_text(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    opened = _last_unclosed(lines)
    if opened is None:
        return Spot(min(mark.line, len(lines) - 1), 0, "the text ends in the middle of a value; correct it", None)
    bracket = _character(opened, lines)
    return Spot(opened.line, opened.column, f'this {bracket} is never closed; add the missing "{_CLOSING[bracket]}"')


def _last_unclosed(lines: list[str]) -> yaml.Mark | None:
    """The innermost bracket that is still open where the text ends."""
    still_open: list[yaml.Mark] = []
    try:
        for token in yaml.scan("\n".join(lines)):
            if isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken):
                still_open.append(token.start_mark)
            elif isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken):
                still_open.pop()
    except (yaml.YAMLError, IndexError):
        return None
    return still_open[-1] if still_open else None


def _quote(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    character = _character(context, lines)
    return Spot(context.line, context.column, f"this quote is never closed; add the missing {character}", None)


def _escape(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    sentence = "\\ has a meaning of its own between double quotes; use single quotes, or write \\\\"
    return Spot(mark.line, max(mark.column - 1, 0), sentence, 2)


def _colon_in_value(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    """A second colon, a line that is indented more than the one before, or one before without a space after its colon."""
    line = lines[mark.line]
    match = re.match(r"(\s*)([\w.\"'-]+)\s*:\s+\S", line)
    if match and mark.column > match.end(2):
        return Spot(mark.line, match.end() - 1, "this value holds a colon and a space; write all of it in quotes", None)
    above = max((number for number in range(mark.line) if _content(lines[number])), default=None)
    if above is None:
        return Spot(mark.line, mark.column, "a colon is not allowed here; write the value in quotes")
    if _indentation(line) > _indentation(lines[above]):
        sentence = "this line is indented more than the one above, which has a value already; remove the spaces"
        return Spot(mark.line, _indentation(line), sentence, None)
    return _no_key(above, lines)


def _no_colon(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    return _no_key(context.line, lines)


def _no_key(number: int, lines: list[str]) -> Spot:
    """A line that should hold a key and a value."""
    column = _indentation(lines[number])
    content = lines[number].partition("#")[0].strip()
    match = re.fullmatch(r"([\w.\"'-]+?)\s*[=:]\s*(\S.*)", content)
    fix = f'write "{match[1]}: {match[2]}"' if match else 'write "key: value"'
    return Spot(number, column, f"this is no key with a value; {fix}", len(content) or 1)


def _block(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    """A line does not fit the indentation of its section, or something is left over behind a value."""
    found = _character(mark, lines)
    if found in ("}", "]"):
        return Spot(mark.line, mark.column, f'nothing is open that this "{found}" could close; remove it')
    if mark.column == _indentation(lines[mark.line]):
        sentence = (
            f"this line is indented by {mark.column} spaces, which fits no section above; use as many as its neighbours"
        )
        return Spot(mark.line, mark.column, sentence, None)
    return Spot(
        mark.line, mark.column, "this cannot follow the value; remove it, or write all in one pair of quotes", None
    )


def _alias(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    name = re.match(r"\*?([\w-]*)", lines[mark.line][mark.column :])
    written = name[1] if name else ""
    sentence = f'there is no anchor "&{written}" above; add it, or write the text in quotes'
    return Spot(mark.line, mark.column, sentence, len(written) + 1)


def _tag(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    tag = lines[mark.line][mark.column :].split()[0]
    return Spot(mark.line, mark.column, f'"{tag}" is a YAML tag, which configs do not use; remove it', len(tag))


def _directive(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    return Spot(mark.line, 0, "a line cannot begin with %; write the text in quotes", None)


def _documents(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    sentence = "a second document begins here; remove this line, or put what follows into a file of its own"
    return Spot(mark.line, mark.column, sentence, 3)


def _merge(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    return Spot(mark.line, mark.column, "<< takes in a section; give it one, such as <<: *name", None)


def _depth(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    return Spot(mark.line, mark.column, "sections and lists are nested too deep; remove some levels")


def _key(mark: yaml.Mark, context: yaml.Mark, lines: list[str]) -> Spot:
    return Spot(mark.line, mark.column, "a key must be text, not a list or a section; write it in quotes")


RULES: tuple[tuple[str, Callable[[yaml.Mark, yaml.Mark, list[str]], Spot | None]], ...] = (
    (r"that cannot start any token", _reserved),
    (r"found a tab|'\\t'", _tab),
    (r"expected ',' or", _bracket_or_comma),
    (r"expected the node content, but found '[]},:?-]'", _no_value),
    (r"chomping or indentation|a comment or a line break|expected URI", _reserved_before),
    (r"expected '<document start>'", _after_the_end),
    (r"expected the node content, but found '<stream end>'", _end_of_text),
    (r"unexpected end of stream|unexpected document separator", _quote),
    (r"unknown escape character|escape sequence of", _escape),
    (r"mapping values are not allowed here", _colon_in_value),
    (r"could not find expected ':'", _no_colon),
    (r"expected <block end>", _block),
    (r"found undefined alias", _alias),
    (r"constructor for the tag|undefined tag handle", _tag),
    (r"expected alphabetic or numeric character|expected '%|directive", _directive),
    (r"another document", _documents),
    (r"for merging", _merge),
    (r"nested too deep", _depth),
    (r"a key must be text|unhashable key", _key),
)
"""Part of the parser's message, and what it means here. None: the next rule, or the parser's words."""


def _character(mark: yaml.Mark, lines: list[str]) -> str:
    line = lines[mark.line] if mark.line < len(lines) else ""
    return line[mark.column] if mark.column < len(line) else ""


def _content(line: str) -> str:
    return line.partition("#")[0].strip()


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _key_before(mark: yaml.Mark, lines: list[str]) -> int:
    """Column at which the key begins whose colon is at the mark."""
    before = lines[mark.line][: mark.column]
    match = re.search(r"[\"']?[\w.-]+[\"']?\s*$", before)
    return match.start() if match else mark.column
