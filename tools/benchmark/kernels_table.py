"""How long a call takes in each of the ways to compute it, and the table of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from megatron.fused_kernels import dispatch
from tools.benchmark.kernels_work import Make, Work

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
COPIED = 2**29  # bytes

Timer = Callable[[Callable[[], Any]], float]
"""Milliseconds that a call takes."""


def _compiled(operation: str) -> Callable[..., Any]:
    torch.compiler.reset()
    return torch.compile(dispatch.plain(operation))


WAYS: dict[str, Callable[[str], Callable[..., Any]]] = {
    "torch": dispatch.plain,
    "torch.compile": _compiled,
    "kernel": dispatch.fused,
}


def measured(
    work: Work, way: str, dtype: torch.dtype, device: torch.device, timer: Timer, *, shrink: int = 1
) -> dict[str, Any]:
    """A row: milliseconds and GB/s of the forward and the backward pass (None without one)."""
    operation = WAYS[way](work.operation)
    arguments = work.arguments(Make(dtype, device, shrink))
    tensors = [each for each in arguments.values() if isinstance(each, Tensor)]
    learned = [each for each in tensors if each.requires_grad]
    unit = tensors[0].numel() * tensors[0].element_size()

    def speed(milliseconds: float, units: float) -> float:
        return unit * units / milliseconds / 1e6

    forward = timer(lambda: operation(**arguments))
    row = {"operation": work.operation, "way": way, "forward ms": forward, "forward GB/s": speed(forward, work.forward)}
    if not work.backward:
        return {**row, "backward ms": None, "backward GB/s": None}
    gradient = torch.randn_like(operation(**arguments))
    backward = timer(lambda: torch.autograd.grad(operation(**arguments), learned, gradient)) - forward
    return {**row, "backward ms": backward, "backward GB/s": speed(backward, work.backward)}


def copy_speed(device: torch.device, timer: Timer, *, size: int = COPIED) -> float:
    """GB/s at which the device copies, both directions added: what nothing that goes through memory can beat."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / timer(lambda: target.copy_(source)) / 1e6


def table_of(rows: list[dict[str, Any]], ceiling: float) -> str:
    """Markdown: GB/s, and in brackets the percentage of what copying moves."""
    lines = ["| operation | way | forward | backward |", "| --- | --- | --- | --- |"]
    for row in rows:
        cells = [_cell(row[f"{part} ms"], row[f"{part} GB/s"], ceiling) for part in ("forward", "backward")]
        lines.append(f"| {row['operation']} | {row['way']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(milliseconds: float | None, speed: float | None, ceiling: float) -> str:
    if milliseconds is None or speed is None:
        return ""
    return f"{milliseconds:.3f} ms, {speed:.0f} GB/s ({100 * speed / ceiling:.0f}%)"
