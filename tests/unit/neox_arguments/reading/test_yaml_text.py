"""Values, places and mistakes of one YAML text."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments.reading.yaml_text import MAX_DEPTH, parse_yaml


def mistake(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, source="a.yml")
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("12: 3", {"12": 3}),
        ("on: 3", {"on": 3}),
        ("~: 3", {"~": 3}),
        ("fp16: {1: 2}", {"fp16": {"1": 2}}),
        ("seed: null", {"seed": None}),
        ("seed:", {"seed": None}),
        ("seed: None", {"seed": None}),
        ("fp16: &half {enabled: true}\nbf16: *half", {"fp16": {"enabled": True}, "bf16": {"enabled": True}}),
        ("fp16: &a {x: 1, y: 2}\nbf16: {<<: *a, y: 3}", {"fp16": {"x": 1, "y": 2}, "bf16": {"x": 1, "y": 3}}),
    ],
)
def test_keys_are_text_and_anchors_are_resolved(text: str, values: dict[str, Any]) -> None:
    parsed = parse_yaml(text, source="a.yml")
    assert parsed.values == values
    assert parsed.problems == ()


def test_merged_keys_have_the_place_where_they_are_written() -> None:
    values = parse_yaml("fp16: &a {x: 1, y: 2}\nbf16:\n  <<: *a\n  y: 3\n", source="a.yml")
    assert str(values.origin("bf16.x")) == "a.yml:1:11"
    assert str(values.origin("bf16.y")) == "a.yml:4:3"
    assert str(values.value_origin("bf16.y")) == "a.yml:4:6"


def test_values_have_places_of_their_own() -> None:
    values = parse_yaml("a: {b: 12}\nc:\n  d: [1,\n   2]\n", source="a.yml")
    assert str(values.value_origin("a.b")) == "a.yml:1:8"
    assert str(values.value_origin("c")) == "a.yml:2:1", "a block is pointed at by its key"
    at = values.value_origin("c.d")
    assert at is not None
    assert (str(at), at.width) == ("a.yml:3:6", None)
    assert str(values.value_origin("c.d.1")) == "a.yml:4:4"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a: [1, 2\nb: 3\n", 'a.yml:2:1: a "," is missing before this'),
        ("{\na: 1\nb: 2}\n", 'a.yml:3:1: a "," is missing before this'),
        ("a: {b: [1, 2}\n", "a.yml:1:8: this [ is never closed"),
        ("a: {b: [1, 2\n", 'a.yml:1:8: this [ is never closed; add the missing "]"'),
        ("a: 1\n  b: 2\n", "a.yml:2:3: this line is indented more"),
        ("a:\n    b: 1\n  c: 2\n", "a.yml:3:3: this line is indented by 2 spaces"),
        ('a: "b\nc: 1\n', 'a.yml:1:4: this quote is never closed; add the missing "'),
        ("a: b: c\n", "a.yml:1:4: this value holds a colon and a space; write all of it in quotes"),
        ("a:4\nb: 3\n", 'a.yml:1:1: this is no key with a value; write "a: 4"'),
        ("a: 1\nb = 2\n", 'a.yml:2:1: this is no key with a value; write "b: 2"'),
        ("a: {b: 1}}\n", 'a.yml:1:10: nothing is open that this "}" could close'),
        ("a: @b\n", "a.yml:1:4: a value cannot begin with @"),
        ("a: !!python/name:os.system\n", 'a.yml:1:4: "!!python/name:os.system" is a YAML tag'),
        ("a: !!set {b}\n", 'a.yml:1:4: "!!set" is a YAML tag'),
        ("a: *b\n", 'a.yml:1:4: there is no anchor "&b"'),
        ("a: 1\n---\nb: 2\n", "a.yml:2:1: a second document begins here"),
        ("a: \x07\n", "a.yml:1:4: the character U+0007 cannot be part of a config"),
        ('a: "\\q"\n', "a.yml:1:5: \\ has a meaning of its own"),
        ("a: |b\n", "a.yml:1:4: | has a meaning of its own before a value"),
        ("{a: 1}, b: 2\n", "a.yml:1:7: everything is closed already before this"),
        ("{a: 1,, b: 2}\n", 'a.yml:1:7: a value is missing before this ","'),
        ("[a]: 1\n", "a.yml:1:1: a key must be text"),
        ("just text\n", "a.yml:1:1: expected keys and values, found a single value"),
    ],
)
def test_mistakes_are_told_where_they_were_made(text: str, start: str) -> None:
    assert mistake(text).startswith(start)


@pytest.mark.parametrize(
    "text",
    [
        f"a: {'[' * (MAX_DEPTH + 1)}{']' * (MAX_DEPTH + 1)}",
        "a: &a [*a]",
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(
            f"{key}: &{key} [{', '.join([f'*{before}'] * 10)}]\n"
            for before, key in zip("abcdef", "bcdefg", strict=True)
        ),
    ],
)
def test_texts_without_end_are_refused(text: str) -> None:
    assert "nested too deep; remove some levels" in mistake(text)
