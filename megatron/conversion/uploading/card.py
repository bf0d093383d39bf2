"""The card of an uploaded model that has none: what it is, where it comes from, and how it was proven equal to the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CARD = "README.md"
_TOLD = ("iteration", "parameters")
"""What the card tells of the source; where it lay concerns nobody else."""


def model_card(repository: str, report: Mapping[str, Any]) -> str:
    """The text of README.md for `repository`: metadata of the Hub, then a few sentences. report: of the conversion, empty without one."""
    name = repository.rpartition("/")[2]
    metadata = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags:", "- deepy-neox", "---"]
    paragraphs = [f"# {name}", *_paragraphs(report), _use(repository)]
    return "\n".join(metadata) + "\n\n" + "\n\n".join(paragraphs) + "\n"


def _paragraphs(report: Mapping[str, Any]) -> Iterator[str]:
    architecture = report.get("architecture")
    made = f"converted to a `{architecture}` of transformers" if architecture else "converted for transformers"
    yield f"A language model trained with deepy-neox and {made}."
    source = report.get("source", {})
    known = {name: source[name] for name in _TOLD if name in source}
    if known:
        yield "Of the checkpoint that it was converted from:\n\n" + _facts(known)
    if report.get("equal") is True:
        text = "The conversion loaded the converted model again and compared it with the original: they are equal."
        yield text + (f" What was measured:\n\n{_facts(report['differences'])}" if report.get("differences") else "")
        yield "`conversion_report.json` has the details, with the size and SHA-256 of every file."
    else:
        yield "Nothing proves that the converted model computes the same as the original."
    yield "No licence and no data are stated here: the author of the model has to add them."


def _use(repository: str) -> str:
    return f"""```python
from transformers import pipeline

print(pipeline("text-generation", "{repository}")("Once upon a time", max_new_tokens=20)[0]["generated_text"])
```"""


def _facts(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"* {name}: {_value(value)}" for name, value in facts.items())


def _value(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)
