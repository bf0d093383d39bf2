"""Numbers, lists and tables in plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 100
"""Columns of a page."""
NAMES = 13
"""Columns of the names of facts."""
GIB, MIB = 2**30, 2**20


def count(number: float) -> str:
    """`20.55B`, `162.3M`, `12.5k`, `512`."""
    for unit, size, digits in (("T", 1e12, 2), ("B", 1e9, 2), ("M", 1e6, 1), ("k", 1e3, 1)):
        if number >= size:
            return f"{number / size:.{digits}f}{unit}"
    return f"{number:.3g}"


def memory(size: int) -> str:
    """`37.2 GiB`, or `310 MiB` below one GiB."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def flops(number: float) -> str:
    """`4.21 EFLOP`, `310.00 TFLOP`, ..."""
    for unit, size in (("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12)):
        if number >= size:
            return f"{number / size:.2f} {unit}FLOP"
    return f"{number / 1e9:.2f} GFLOP"


def time(seconds: float) -> str:
    """`12.5 days`, `3.2 hours`, `45 minutes`, `12 seconds`."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.3g} seconds"


def grid(*, pipe: int, data: int, tensor: int, context: int = 1) -> str:
    """`pipeline 2 x data 1 x tensor 4`; context ranks only where there are several."""
    cut = f" x context {context}" if context > 1 else ""
    return f"pipeline {pipe} x data {data}{cut} x tensor {tensor}"


def ranks(numbers: Sequence[int]) -> str:
    """`rank 3`, `ranks 1, 2`."""
    return f"rank{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def percent(share: float) -> str:
    """`7 %`, or `0.4 %` below one."""
    return f"{share:.0%}".replace("%", " %") if share >= 0.01 or share == 0 else f"{share:.1%}".replace("%", " %")


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows as aligned columns two blanks apart; the columns numbered in `right` are aligned at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:>{width}}" if column in right else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def wrap(text: str, *, indent: int = 0, hanging: int = 0) -> list[str]:
    """The text in lines of at most WIDTH columns; later lines `hanging` columns further in. Words are never divided."""
    first = " " * indent
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=first + " " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def indent(lines: Sequence[str], columns: int) -> list[str]:
    """The lines, further in."""
    return [" " * columns + line for line in lines]


def facts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """`  name  text` lines, wrapped below the text."""
    return [line for name, text in pairs for line in wrap(f"{name:<{NAMES}}  {text}", indent=2, hanging=NAMES + 2)]
