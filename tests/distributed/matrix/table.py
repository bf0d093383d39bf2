"""The cells: a covering table over layouts, engine options and model features, and a few that stand for a key of their own."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from itertools import combinations, product

from tests.distributed.matrix.cell import (
    BIASES,
    HEAD_KINDS,
    HEAD_NORMS,
    ONE,
    POSITIONS,
    RESIDUALS,
    SMALL_BUCKETS,
    Cell,
    Grid,
)
from tests.distributed.matrix.covering import Axes, Row, Rule, Space, combinations_of, cover

SIZES = (1, 2, 4)


def _grids() -> list[Grid]:
    """Every way to fill 1, 2 and 4 processes, with either engine."""
    grids = [
        Grid(data, tensor, context, pipe, in_sequence)
        for data, tensor, context, pipe in product(SIZES, SIZES, SIZES, (0, *SIZES))
        for in_sequence in (False, True)[: 1 if tensor == 1 else 2]
    ]
    return sorted((grid for grid in grids if grid.processes in SIZES), key=lambda grid: grid.processes)


AXES: Axes = {
    "grid": _grids(),
    "zero": (0, 1, 2, 3),
    "partition": ("type:transformer", "uniform", "parameters"),
    "blocks": (4, 3, 2),
    "recompute": (0, 1, 2),
    "accumulation": (1, 4),
    "mask": ("all tokens", "uneven", "documents"),
    "tied": (False, True),
    "heads": tuple(HEAD_KINDS),
    "residual": tuple(RESIDUALS),
    "activation": ("gelu", "swiglu"),
    "positions": tuple(POSITIONS)[:4],
    "norm": ("layernorm", "rmsnorm", "scalenorm", "non_parametric_layernorm"),
    "head_norm": tuple(HEAD_NORMS),
    "window": (0, 3),
    "attention": ("global", "flash"),
    "biases": tuple(BIASES),
    "dropout": (0.0, 0.2),
    "clipping": (0.05, 0.0),
}

RULES = (
    Rule(
        ("grid", "zero"), lambda grid, zero: zero < 2 or grid.pipe < 2, "ZeRO 2 and 3 do not work with pipeline stages"
    ),
    Rule(("grid", "blocks"), lambda grid, blocks: blocks >= grid.pipe, "each stage needs a block"),
    Rule(
        ("grid", "partition"),
        lambda grid, partition: grid.pipe > 1 or partition == "type:transformer",
        "nothing is partitioned without pipeline stages",
    ),
    Rule(("grid", "heads"), lambda grid, heads: HEAD_KINDS[heads] % grid.tensor == 0, "tensor ranks need whole heads"),
    Rule(
        ("norm", "head_norm"),
        lambda norm, head_norm: head_norm != "norm of all heads" or norm in ("layernorm", "rmsnorm"),
        "only these norms know all heads",
    ),
    Rule(
        ("grid", "dropout"),
        lambda grid, dropout: not dropout or grid in (ONE, Grid(pipe=1), Grid(tensor=2), Grid(tensor=4)),
        "every grid has a cell of its own with dropout",
    ),
)

PAIRS = tuple(combinations(AXES, 2))
TRIPLES = (("grid", "zero", "partition"), ("grid", "accumulation", "tied"))

OPTIONS = ("zero", "partition", "recompute", "accumulation", "mask", "tied", "clipping")
"""What an engine is told; the other axes are the model."""

GRID_SIZES = tuple(field.name for field in fields(Grid))

SPACE = Space(AXES, RULES)

_STATIC_SCALE = {"fp16": {"enabled": True, "loss_scale": 256}}

EXTRA = (
    *(Cell(Grid(pipe=pipe), precision="fp32", tied=tied) for pipe in (1, 2) for tied in (False, True)),
    Cell(
        Grid(data=2),
        zero=2,
        accumulation=4,
        title="overlapping, round robin",
        extra={
            "zero_optimization": {
                "stage": 2,
                **SMALL_BUCKETS,
                "overlap_comm": True,
                "round_robin_gradients": True,
                "contiguous_gradients": True,
            }
        },
    ),
    Cell(
        Grid(data=2),
        zero=2,
        accumulation=4,
        title="without reduce-scatter",
        extra={"zero_optimization": {"stage": 2, **SMALL_BUCKETS, "reduce_scatter": False}},
    ),
    Cell(
        Grid(data=2),
        title="prescaled gradients",
        extra={"prescale_gradients": True, "gradient_predivide_factor": 2.0},
    ),
    Cell(Grid(tensor=2), recompute=1, title="partitioned activations", extra={"partition_activations": True}),
    Cell(
        Grid(tensor=2), title="scores divided by the layer number", extra={"apply_query_key_layer_scaling": True}
    ),
    Cell(Grid(pipe=2, tensor=2), accumulation=4, positions="scaled rotary"),
    Cell(
        Grid(pipe=2, data=2), zero=1, accumulation=4, precision="bfloat16", title="fp32 messages", extra={"fp32_allreduce": True}
    ),
    *(
        Cell(grid, zero=zero, accumulation=4, precision=precision, tied=True, extra=extra)
        for precision, extra in (("fp16", _STATIC_SCALE), ("bfloat16", {}))
        for grid, zero in (
            (Grid(data=2), 0),
            (Grid(pipe=2), 0),
            (Grid(tensor=2), 2),
            (Grid(context=2), 3),
            (Grid(pipe=2, tensor=2, in_sequence=True), 1),
        )
    ),
)  # fmt: skip


@cache
def covering_cells() -> tuple[Cell, ...]:
    """Every legal pair of values and every legal triple of TRIPLES, in fp64."""
    return tuple(Cell(**row) for row in cover(SPACE, (*TRIPLES, *PAIRS)))


@cache
def single_precision_cells() -> tuple[Cell, ...]:
    """For each grid a covering cell once more, as it is trained: in fp32. Norms over few numbers would magnify its rounding."""
    last = {
        cell.grid: cell
        for cell in covering_cells()
        if cell.norm in ("layernorm", "rmsnorm") and cell.head_norm != "norm of each head"
    }
    return tuple(replace(cell, precision="fp32") for cell in last.values())


@cache
def dropout_cells() -> tuple[Cell, ...]:
    """For each grid its first covering cell without dropout once more, with it."""
    first = {cell.grid: cell for cell in reversed(covering_cells()) if not cell.dropout}
    return tuple(replace(cell, dropout=0.2) for cell in first.values())


@cache
def all_cells() -> tuple[Cell, ...]:
    """The whole matrix."""
    return (*covering_cells(), *single_precision_cells(), *dropout_cells(), *EXTRA)


@cache
def quick_cells() -> tuple[Cell, ...]:
    """A part of the matrix in which every pair of sizes of grids and of OPTIONS still stands, and every value of the other axes."""
    groups = (*combinations(GRID_SIZES, 2), *combinations(OPTIONS, 2), *((name,) for name in AXES if name != "grid"))
    cells = covering_cells()
    covered = [set(combinations_of({**row_of(cell), **vars(cell.grid)}, groups)) for cell in cells]
    missing = set().union(*covered)
    chosen = []
    while missing:
        best = max(range(len(cells)), key=lambda index: len(covered[index] & missing) / cells[index].processes)
        missing -= covered[best]
        chosen.append(cells[best])
    return (*chosen, *single_precision_cells()[::12], *dropout_cells()[:4], *EXTRA[-2:])


def row_of(cell: Cell) -> Row:
    """The values of the cell on each axis."""
    return {name: getattr(cell, name) for name in AXES}
