"""The results of an evaluation as a table of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megatron.text import table

HEAD = ("task", "shots", "examples", "metric", "value", "")
STDERR = "_stderr"


def results_table(results: Mapping[str, Any]) -> list[str]:
    """Lines for lm-eval's dictionary of results: a row for each metric, the tasks of a group below it and further in."""
    rows = [row for name, depth in _in_order(results) for row in _rows(results, name, depth)]
    return table([HEAD, *rows], right=(1, 2, 4)) if rows else ["no task has a score"]


def number(value: object) -> str:
    """Four digits behind the point, or as many significant ones of what is large."""
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.5g}"


def _rows(results: Mapping[str, Any], name: str, depth: int) -> Iterator[tuple[str, ...]]:
    values = results["results"].get(name, {})
    shots = results.get("n-shot", {}).get(name, "")
    examples = results.get("n-samples", {}).get(name, {}).get("effective", "")
    title = "  " * depth + str(values.get("alias") or name)
    metrics = [key for key in values if "," in key and not key.partition(",")[0].endswith(STDERR)]
    for row, key in enumerate(metrics):
        metric, _, kind = key.partition(",")
        error = values.get(f"{metric}{STDERR},{kind}")
        shown = metric if kind == "none" else f"{metric} ({kind})"
        first = (title, str(shots), str(examples)) if row == 0 else ("", "", "")
        yield (*first, shown, number(values[key]), f"± {number(error)}" if isinstance(error, int | float) else "")
    if not metrics:  # a group without a score of its own
        yield title, "", "", "", "", ""


def _in_order(results: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every task and group with its depth: a group, then what it has."""
    members: Mapping[str, Sequence[str]] = results.get("group_subtasks", {})
    below = {child for children in members.values() for child in children}
    seen: set[str] = set()

    def walk(name: str, depth: int) -> Iterator[tuple[str, int]]:
        if name in seen:
            return
        seen.add(name)
        yield name, depth
        for child in members.get(name, ()):
            yield from walk(child, depth + 1)

    for name in [*members, *results.get("results", {})]:
        if name not in below:
            yield from walk(name, 0)
