"""YAML as editors read it (YAML 1.2, core schema), which differs from what the loader reads: `1e-4` is a number, `yes` is text."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _EditorLoader(yaml.SafeLoader):
    """Scalars of the core schema of YAML 1.2."""


_EditorLoader.yaml_implicit_resolvers = {}
for tag, pattern, first_characters in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"null|Null|NULL|~|", ["~", "n", "N", ""]),
):
    _EditorLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first_characters)
    )


def read_as_editor(text: str) -> Any:
    """The values of a YAML text."""
    return yaml.load(text, Loader=_EditorLoader)
