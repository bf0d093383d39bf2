"""The README's table of families is the menu."""

from __future__ import annotations

from pathlib import Path

from megatron.components import FAMILIES
from megatron.conversion.mapping.family import Family

README = Path(__file__).parents[4] / "README.md"


def test_the_readme_lists_every_family() -> None:
    text = README.read_text(encoding="utf-8")
    section = text.partition("### Families\n")[2].partition("\n###")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    assert table == [_row(name, FAMILIES.load(name)) for name in FAMILIES.names]


def _row(name: str, family: Family) -> str:
    return f"| `{name}` | {family.causal} | {'yes' if family.classifier else ''} |"
