"""What all pairs came to: the table `results.md` beside this file, and a line of the README about it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.distributed.resharding.cases import HALF, LAYOUTS, WHOLE, Pair
from tests.distributed.resharding.mistakes import MISTAKES
from tests.distributed.resharding.running import SCALARS, Verdict

RESULTS = Path(__file__).with_name("results.md")
README = Path(__file__).resolve().parents[3] / "README.md"
BEGIN, END = "<!-- resharding: written by `make matrix` -->", "<!-- end of resharding -->"
TENSORS = ("weights", "first moments", "second moments")
DEVIATION = re.compile(r"\d\.\de-\d\d|\b0\b")
HEAD = f"""# A checkpoint saved under one layout, gone on with under another

Written by `make matrix`. Each training makes {HALF} steps in the layout of the second column, is saved, loaded in that of the third and makes
{WHOLE - HALF} steps there; the numbers are the largest relative deviations from {WHOLE} steps in the first layout. The last column says whether the
logical SHA-256 (`megatron/checkpointing/digest.py`) is the same when the second layout saves what it has loaded, and again when
the first layout has loaded that and saves it.

| training | saved in | gone on with in | losses, norms | weights | moments | SHA-256 |
| --- | --- | --- | --- | --- | --- | --- |
"""


def page(verdicts: Mapping[Pair, Verdict]) -> str:
    """The table of all pairs."""
    return HEAD + "".join(_row(pair, verdict) for pair, verdict in verdicts.items())


def summary(verdicts: Mapping[Pair, Verdict]) -> str:
    """The README's part."""
    worst: dict[str, float] = {}
    for verdict in verdicts.values():
        value = max(verdict.deviations[kind] for kind in (*SCALARS, *TENSORS))
        worst[verdict.precision] = max(worst.get(verdict.precision, 0.0), value)
    return summary_of(len(verdicts), worst)


def summary_of(pairs: int, worst: Mapping[str, float]) -> str:
    """The same of these counts and largest deviations by precision."""
    numbers = ", ".join(f"{_written(value)} in {name}" for name, value in worst.items())
    return "\n".join(
        [
            BEGIN,
            f"{pairs} ordered pairs of {len(LAYOUTS)} layouts, {len(MISTAKES)} planted mistakes; the largest relative deviation of a loss, norm, "
            f"weight or moment: {numbers} ([each pair](tests/distributed/resharding/{RESULTS.name})).",
            END,
        ]
    )


def written_summary() -> str:
    """The README's part as it stands there now."""
    text = README.read_text(encoding="utf-8")
    return BEGIN + text.partition(BEGIN)[2].partition(END)[0] + END


def write(verdicts: Mapping[Pair, Verdict]) -> None:
    """Put the results into `results.md` and the README."""
    RESULTS.write_text(page(verdicts), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(text.replace(written_summary(), summary(verdicts)), encoding="utf-8")


def without_deviations(text: str) -> str:
    """A text with its measured numbers left out."""
    return DEVIATION.sub("-", text)


def _row(pair: Pair, verdict: Verdict) -> str:
    found = verdict.deviations
    numbers = [_worst(found, kinds) for kinds in (SCALARS, TENSORS[:1], TENSORS[1:])]
    cells = [pair.training, pair.first, pair.second, *numbers, "other" if found["hash"] else "same"]
    return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |\n"


def _worst(found: Mapping[str, float], kinds: Iterable[str]) -> str:
    return _written(max(found[kind] for kind in kinds))


def _written(value: float) -> str:
    if not math.isfinite(value):
        return "infinite"
    return f"{value:.1e}" if value else "0"
