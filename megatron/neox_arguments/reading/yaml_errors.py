"""What is wrong with a text that is not YAML: the place where the mistake was made, what it is, and how to write it.

The parser reports where it could not go on, in its own terms; often the mistake is before that.
"""

from __future__ import annotations

import re

import yaml

from megatron.neox_arguments.reading.excerpt import excerpt
from megatron.neox_arguments.reading.values import ConfigFile, Origin
from megatron.neox_arguments.reading.yaml_mistakes import RULES, Spot


def syntax_problem(error: yaml.YAMLError, file: ConfigFile) -> str:
    """One problem, with file:line:column, the fix and the line."""
    lines = file.text.splitlines()
    spot = _find_spot(error, lines, file.text)
    origin = Origin(file.path, spot.line + 1, spot.column + 1, spot.width)
    return f"{origin}: {spot.sentence}{excerpt([file], [origin])}"


def mistake_in(error: yaml.YAMLError, text: str) -> str:
    """The sentence alone, for a text that is not in a file."""
    return _find_spot(error, text.splitlines() or [""], text).sentence


def _find_spot(error: yaml.YAMLError, lines: list[str], text: str) -> Spot:
    if isinstance(error, yaml.reader.ReaderError):
        return _control_character(error, text)
    if not isinstance(error, yaml.MarkedYAMLError):
        return Spot(0, 0, f"this is not YAML: {error}; correct it")
    problem, mark = str(error.problem), error.problem_mark or error.context_mark
    if mark is None:
        return Spot(0, 0, f"this is not YAML: {problem}; correct it")
    context = error.context_mark or mark
    for pattern, explain in RULES:
        if re.search(pattern, problem):
            spot = explain(mark, context, lines)
            if spot is not None:
                return spot
    return Spot(min(mark.line, max(len(lines) - 1, 0)), mark.column, f"this is not YAML: {problem}; correct this line")


def _control_character(error: yaml.reader.ReaderError, text: str) -> Spot:
    """The reader knows the position in the text only."""
    before = text[: error.position]
    code = error.character if isinstance(error.character, int) else ord(error.character)
    line, column = before.count("\n"), len(before) - (before.rfind("\n") + 1)
    return Spot(line, column, f"the character U+{code:04X} cannot be part of a config; remove it")
