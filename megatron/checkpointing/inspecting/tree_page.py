"""The tree of parameters as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from megatron.checkpointing.inspecting.lines import Line, columns
from megatron.checkpointing.inspecting.tree import Node
from megatron.checkpointing.names import WEIGHT

Cell = tuple[str, str]


def tree_lines(root: Node, kinds: Sequence[str]) -> list[Line]:
    """A line for each layer, module and parameter. kinds: of optimizer state, a column each; norms only where values were read."""
    shown = (WEIGHT, *kinds) if root.norms else ()
    header = ["parameters", "shape", "dtype", "elements", *(_title(kind) for kind in shown), "remarks"]
    rows = [[(text, "bold") for text in header], *_rows(root, shown)]
    if not any(row[-1][0] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    return columns(rows, right=(3, *(4 + number for number in range(len(shown)))))


def shape_text(shape: Sequence[int]) -> str:
    """`4,096 x 48`."""
    return " x ".join(f"{length:,}" for length in shape) or "scalar"


def _title(kind: str) -> str:
    return "norm" if kind == WEIGHT else f"of {kind}"


def _rows(node: Node, kinds: Sequence[str], stem: str = "") -> Iterator[list[Cell]]:
    for number, child in enumerate(node.children, start=1):
        is_last = number == len(node.children)
        yield _row(child, kinds, stem + ("└─ " if is_last else "├─ "))
        yield from _rows(child, kinds, stem + ("   " if is_last else "│  "))


def _row(node: Node, kinds: Sequence[str], stem: str) -> list[Cell]:
    style = "" if node.tensor else "dim"
    shape, dtype = (shape_text(node.tensor.shape), node.tensor.dtype) if node.tensor else ("", "")
    norms = [(f"{node.norms[kind]:.4g}" if kind in node.norms else "", style) for kind in kinds]
    label = (stem + node.label, "" if node.tensor else "cyan")
    return [
        label,
        (shape, ""),
        (dtype, "dim"),
        (f"{node.elements:,}", style),
        *norms,
        ("; ".join(node.remarks), "yellow"),
    ]
