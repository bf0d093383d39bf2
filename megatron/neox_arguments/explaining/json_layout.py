"""JSON as text that people can read and compare: what fits on a line, or holds no objects, stays on a line."""

from __future__ import annotations

import json
from typing import Any

WIDTH = 120


def lay_out(value: Any, *, column: int = 0, before: int = 0) -> str:
    """`value` as JSON. `column`: spaces before the lines of its items; `before`: characters already on its first line."""
    text = json.dumps(value, ensure_ascii=False)
    parts = list(value.values()) if isinstance(value, dict) else value
    if before + len(text) < WIDTH or not isinstance(parts, list) or not any(isinstance(part, dict) for part in parts):
        return text
    inner = " " * (column + 2)
    if isinstance(value, list):
        items = [inner + lay_out(item, column=column + 2, before=column + 2) for item in value]
        return "\n".join(["[", ",\n".join(items), f"{' ' * column}]"])
    lines = []
    for key, item in value.items():
        name = f"{inner}{json.dumps(key, ensure_ascii=False)}: "
        lines.append(name + lay_out(item, column=column + 2, before=len(name)))
    return "\n".join(["{", ",\n".join(lines), f"{' ' * column}}}"])
