"""The two parts of a cross entropy that read all logits, with the collectives of a divided vocabulary between them left to the caller.

Rows are long (a vocabulary), so a program goes through one in pieces.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from megatron.fused_kernels import reference
from megatron.fused_kernels.tiles import ceiling, is_fusable, power_of_two, warps

_PIECE = 4096  # columns


def softmax_statistics(logits: Tensor, labels: Tensor, *, real: int) -> tuple[Tensor, Tensor, Tensor]:
    """See reference.softmax_statistics."""
    if not is_fusable(logits) or logits.stride(-1) != 1 or not real:
        return reference.softmax_statistics(logits, labels, real=real)
    rows, width = logits.shape[0], min(power_of_two(real), _PIECE)
    maximum, exponentials, label_logit = logits.new_empty((3, rows), dtype=torch.float32).unbind()
    softmax_statistics_kernel[(rows,)](
        *(logits, labels.contiguous(), maximum, exponentials, label_logit, logits.stride(0), real),
        width=width,
        num_warps=warps(width),
    )
    return maximum, exponentials, label_logit


def softmax_gradient_(
    logits: Tensor, labels: Tensor, log_partition: Tensor, coefficients: Tensor, *, real: int
) -> Tensor:
    """See reference.softmax_gradient_."""
    if not is_fusable(logits, log_partition, coefficients) or logits.stride(-1) != 1:
        return reference.softmax_gradient_(logits, labels, log_partition, coefficients, real=real)
    rows, columns = logits.shape
    width = min(power_of_two(columns), _PIECE)
    softmax_gradient_kernel[(rows, ceiling(columns, width))](
        *(logits, labels.contiguous(), log_partition.contiguous(), coefficients.contiguous()),
        *(logits.stride(0), columns, real),
        width=width,
        num_warps=warps(width),
    )
    return logits


@triton.jit
def softmax_statistics_kernel(
    logits: tl.tensor,
    labels: tl.tensor,
    maximum: tl.tensor,
    exponentials: tl.tensor,
    label_logit: tl.tensor,
    row_step: tl.tensor,
    real: tl.tensor,
    width: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * row_step
    # Each lane keeps the maximum and the sum of exponentials of its own columns; only the end is a sum over lanes.
    largest = tl.full([width], -float("inf"), dtype=tl.float32)
    total = tl.zeros([width], dtype=tl.float32)
    for piece in range(0, real, width):
        column = piece + tl.arange(0, width)
        values = tl.load(start + column, mask=column < real, other=-float("inf")).to(tl.float32)
        larger = tl.maximum(largest, values)
        shift = tl.where(larger == -float("inf"), 0, larger)
        total = total * tl.exp(largest - shift) + tl.exp(values - shift)
        largest = larger
    top = tl.max(largest, axis=0)
    shift = tl.where(top == -float("inf"), 0, top)
    tl.store(maximum + row, top)
    tl.store(exponentials + row, tl.sum(total * tl.exp(largest - shift), axis=0))
    label = tl.load(labels + row)
    is_here = (label >= 0) & (label < real)
    tl.store(label_logit + row, tl.load(start + label, mask=is_here, other=0).to(tl.float32))


@triton.jit
def softmax_gradient_kernel(
    logits: tl.tensor,
    labels: tl.tensor,
    log_partition: tl.tensor,
    coefficients: tl.tensor,
    row_step: tl.tensor,
    columns: tl.tensor,
    real: tl.tensor,
    width: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * width + tl.arange(0, width)
    place = logits + row * row_step + column
    values = tl.load(place, mask=column < real, other=-float("inf")).to(tl.float32)
    shares = tl.exp(values - tl.load(log_partition + row))
    label = tl.load(labels + row)
    gradients = (shares - tl.where(column == label, 1.0, 0.0)) * tl.load(coefficients + row)
    tl.store(place, tl.where(column < real, gradients, 0), mask=column < columns)
