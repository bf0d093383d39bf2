"""The learning rate over a run as a plot in plain characters."""

from __future__ import annotations

from collections.abc import Callable

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.optim.lr_schedules import learning_rate

MARGIN = 10


def lr_plot(args: NeoXArgs, *, width: int = 60, height: int = 7) -> list[str]:
    """Lines of at most `width` + 12 columns: the curve over `args.train_iters` (which is not None), with the rate at the left and marks
    below it at the end of warm-up (W) and of the decay (D)."""
    assert args.train_iters is not None
    decay = {} if args.lr_decay_style == "constant" else {"D": float(args.lr_decay_steps)}
    return plot(
        lambda iteration: learning_rate(args, iteration),
        last=args.train_iters,
        marks={"W": args.warmup_steps, **decay},
        width=width,
        height=height,
    )


def plot(
    curve: Callable[[int], float], *, last: int, marks: dict[str, float], width: int = 60, height: int = 7
) -> list[str]:
    """`curve` at the iterations from 0 to `last`, one column for an equal share of them; marks: letters below iterations."""
    rates = [curve(round(column * last / (width - 1))) for column in range(width)]
    top = max(rates) or 1.0
    rows = [min(int(rate / top * (height - 1) + 0.5), height - 1) for rate in rates]
    lines = []
    for row in range(height - 1, -1, -1):
        label = f"{top * row / (height - 1):.2e}" if row in (0, (height - 1) // 2, height - 1) else ""
        line = "".join("*" if at == row else " " for at in rows)
        lines.append(f"{label:>{MARGIN}} |{line}".rstrip())
    lines.append(f"{'':{MARGIN}} +{_axis(last, marks, width)}")
    end = f"{last:,}"
    lines.append(f"{'':{MARGIN}}  0{end:>{width - 1}}")
    return lines


def _axis(last: int, marks: dict[str, float], width: int) -> str:
    axis = ["-"] * width
    for letter, iteration in marks.items():
        column = round(iteration / last * (width - 1))
        if 0 <= column < width:
            axis[column] = letter
    return "".join(axis)
