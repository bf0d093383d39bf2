from __future__ import annotations

import pytest

from megatron.neox_arguments.explaining.attribute_docs import attribute_doc


class Plain:
    """A class whose own text belongs to no field."""

    first: int = 1
    """What is first,
    over two lines."""

    silent: int = 2
    second: int
    """What is second."""
    constant = 3
    """Not of a field."""


class Heir(Plain):
    second: int = 4
    """Said anew."""


@pytest.mark.parametrize(
    ("model", "name", "text"),
    [
        (Plain, "first", "What is first,\nover two lines."),
        (Plain, "second", "What is second."),
        (Plain, "silent", ""),
        (Plain, "constant", ""),
        (Plain, "unknown", ""),
        (Heir, "second", "Said anew."),
        (Heir, "first", "What is first,\nover two lines."),
        (int, "real", ""),
    ],
)
def test_the_text_under_a_field(model: type, name: str, text: str) -> None:
    assert attribute_doc(model, name) == text


def test_a_class_within_a_function_has_texts_too() -> None:
    class Local:
        field: int
        """Of a local class."""

    assert attribute_doc(Local, "field") == "Of a local class."
