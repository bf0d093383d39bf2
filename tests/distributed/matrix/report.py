"""What the whole matrix came to: `results.json` beside this file, and the table in the README."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.distributed.matrix.cell import Cell, Grid
from tests.distributed.matrix.running import SCALARS, Verdict
from tests.distributed.matrix.table import AXES

RESULTS = Path(__file__).with_name("results.json")
README = Path(__file__).resolve().parents[3] / "README.md"
BEGIN, END = "<!-- the matrix: written by `make matrix` -->", "<!-- end of the matrix -->"
DEVIATION = re.compile(r"\d\.\de-\d\d|\b0\b")
COLUMNS = {
    "losses, norms": (("fp64",), SCALARS),
    "gradients": (("fp64",), ("gradients",)),
    "weights, moments": (("fp64",), ("weights", "first moments", "second moments")),
    "all, in fp32": (("fp32",), (*SCALARS, "gradients", "weights", "first moments", "second moments")),
}


def layout_of(cell: Cell) -> Grid:
    """The grid without what makes no other layout: which engine runs a single stage."""
    return replace(cell.grid, pipe=cell.grid.pipe if cell.grid.pipe > 1 else 0)


def summary(verdicts: Mapping[Cell, Verdict], mutations: Sequence[str]) -> dict[str, Any]:
    """Counts, and the worst deviation of each kind by precision and of each column of the README's table by layout."""
    cells = list(verdicts)
    precisions = dict.fromkeys(cell.precision for cell in cells)
    kinds = next(iter(verdicts.values())).deviations
    return {
        "cells": len(cells),
        "red": sorted(cell.name for cell in cells if verdicts[cell].red),
        "cells by processes": {str(size): sum(cell.processes == size for cell in cells) for size in (1, 2, 4)},
        "cells by precision": {name: sum(cell.precision == name for cell in cells) for name in precisions},
        "worst deviation": {
            name: {kind: _worst(verdicts, [c for c in cells if c.precision == name], (kind,)) for kind in kinds}
            for name in precisions
        },
        "layouts": {
            str(layout): {
                column: _worst(verdicts, [c for c in of_layout if c.precision in wanted], shown)
                for column, (wanted, shown) in COLUMNS.items()
            }
            for layout, of_layout in _by_layout(cells).items()
        },
        "seconds": round(sum(verdict.seconds for verdict in verdicts.values())),
        "mutations": list(mutations),
    }


def table(cells: Sequence[Cell], results: Mapping[str, Any], mutations: int) -> str:
    """The README's part: what stands in it follows from the cells, but for the deviations."""
    layouts = _by_layout(cells)
    digest = hashlib.sha256("\n".join(cell.name for cell in cells).encode()).hexdigest()[:12]
    lines = [
        BEGIN,
        f"<!-- cells {digest} -->",
        "",
        f"{len(cells)} cells, {len(layouts)} layouts, {mutations} planted mistakes. The largest relative deviations from one process:",
        "",
        f"| processes | layout | cells | {' | '.join(COLUMNS)} |",
        f"| --- | --- | --- | {' | '.join('---' for _ in COLUMNS)} |",
    ]
    for layout, of_layout in layouts.items():
        worst = results["layouts"].get(str(layout), {})
        numbers = [_written(worst.get(column, 0.0)) for column in COLUMNS]
        lines.append(f"| {layout.processes} | {layout} | {len(of_layout)} | {' | '.join(numbers)} |")
    axes = ", ".join(name.replace("_", " ") for name in AXES if name != "grid")
    return "\n".join(
        [
            *lines,
            "",
            f"Each layout occurs with each value of these that is legal there, and each legal pair of values somewhere: {axes}.",
            END,
        ]
    )


def written_table() -> str:
    """The README's part as it stands there now."""
    text = README.read_text(encoding="utf-8")
    return BEGIN + text.partition(BEGIN)[2].partition(END)[0] + END


def without_deviations(text: str) -> str:
    """The table with its measured numbers left out."""
    return DEVIATION.sub("-", text)


def write(verdicts: Mapping[Cell, Verdict], mutations: Sequence[str]) -> None:
    """Put the results into `results.json` and the README."""
    results = summary(verdicts, mutations)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(text.replace(written_table(), table(list(verdicts), results, len(mutations))), encoding="utf-8")


def _by_layout(cells: Iterable[Cell]) -> dict[Grid, list[Cell]]:
    layouts: dict[Grid, list[Cell]] = {}
    for cell in cells:
        layouts.setdefault(layout_of(cell), []).append(cell)
    return dict(sorted(layouts.items(), key=lambda item: (item[0].processes, item[0].pipe, str(item[0]))))


def _worst(verdicts: Mapping[Cell, Verdict], cells: Iterable[Cell], kinds: Iterable[str]) -> float:
    return max((verdicts[cell].deviations[kind] for cell in cells for kind in kinds), default=0.0)


def _written(value: float) -> str:
    return f"{value:.1e}" if value else "0"
