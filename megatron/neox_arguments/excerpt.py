"""The lines of config files that a message is about, with the text in question underlined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from megatron.neox_arguments.values import ConfigFile, Origin


def excerpt(files: Sequence[ConfigFile], origins: Iterable[Origin | None]) -> str:
    """The lines at `origins`, each once and underlined wherever an origin points; empty for places that are not in a file.

    Every line of the result starts with a newline, so that it can be put behind a sentence.
    """
    lines = {file.path: file.text.splitlines() for file in files}
    marked: dict[tuple[str, int], list[Origin]] = {}
    for origin in origins:
        if origin is not None and origin.line is not None and origin.line <= len(lines.get(origin.source, ())):
            marked.setdefault((origin.source, origin.line), []).append(origin)
    return "".join(
        _underlined(lines[source][line - 1], f"{source}:{line}", marked[source, line]) for source, line in marked
    )


def _underlined(text: str, place: str, origins: Sequence[Origin]) -> str:
    carets = [" "] * (len(text) + 1)
    for origin in origins:
        start = (origin.column or 1) - 1
        for column in range(start, min(start + max(origin.width, 1), len(carets))):
            carets[column] = "^"
    shown = text.replace("\t", " ")
    return f"\n    {place} | {shown}\n    {' ' * len(place)} | {''.join(carets).rstrip()}"
