"""README's tables of the speed of training, from the files that train.py and techniques.py wrote.

python tools/benchmark/speed_tables.py            # writes them into README.md, between the lines `<!-- speed: NAME -->` and `<!-- end -->`
"""

from __future__ import annotations

import sys

# This directory goes to the end: tokenize.py in it would hide the module of that name.
sys.path.append(sys.path.pop(0))

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.techniques_table import markdown_of as techniques_of

RESULTS = Path(__file__).resolve().parent / "results"
README = Path(__file__).resolve().parents[2] / "README.md"


def main() -> None:
    """Rewrite README."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    """The text of README with the tables of the results that there are."""
    for name, lines in (("train", training()), ("techniques", techniques())):
        before, _, rest = text.partition(f"<!-- speed: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        text = f"{before}<!-- speed: {name} -->\n" + "".join(f"{line}\n" for line in lines) + end + after
    return text


def training() -> Iterator[str]:
    """A table of each machine: rows are ways, columns models."""
    for path in sorted(RESULTS.glob("train_*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        yield from ("", f"{machine_of(report)}:", "")
        yield from training_table(report["cases"])
        yield ""


def techniques() -> Iterator[str]:
    """A table of each machine."""
    for path in sorted(RESULTS.glob("techniques_*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        yield from ("", f"{machine_of(report)}:", "")
        yield from techniques_of(report["cases"])
        yield ""


def machine_of(report: dict[str, Any]) -> str:
    """`AMD EPYC, 2 cores, torch 2.13.0`"""
    machine = report["machine"]
    hardware = machine["device"] if machine["device"] != "cpu" else f"{machine['processor']}, {machine['cores']} cores"
    return f"{hardware}, torch {machine['torch'].partition('+')[0]}"


def training_table(cases: dict[str, Any]) -> Iterator[str]:
    """Of each way and model: tokens a second, how many times as fast ours is in the median and in the worst round, peak memory."""
    names = list(dict.fromkeys(name for case in cases.values() for name in case["ways"]))
    heads = [f"{name}, {case['rows']} x {case['length']} tokens" for name, case in cases.items()]
    yield "| | " + " | ".join(heads) + " |"
    yield "| --- |" + " --- |" * len(cases)
    for name in names:
        yield f"| {name} | " + " | ".join(_cell(case["ways"].get(name)) for case in cases.values()) + " |"
    if all(case["ceiling"] for case in cases.values()):
        limits = [
            f"{case['ceiling'] / 1e12:.2f} TFLOP/s, {case['rows'] * case['length'] / case['floor_seconds']:,.0f}"
            for case in cases.values()
        ]
        yield "| *products of matrices alone* | " + " | ".join(limits) + " |"


def _cell(way: dict[str, Any] | None) -> str:
    if way is None:
        return ""
    ratio, memory = way["ratio"], f"{way['peak_bytes'] / 2**30:.1f} GiB"
    if ratio:
        return f"{way['tokens_per_second']:,.0f}: {ratio['median']:.2f} ({ratio['worst']:.2f}), {memory}"
    ceiling = f", {way['of_ceiling']:.2f} of the ceiling" if way["of_ceiling"] else ""
    return f"{way['tokens_per_second']:,.0f}{ceiling}, {memory}"


if __name__ == "__main__":
    main()
