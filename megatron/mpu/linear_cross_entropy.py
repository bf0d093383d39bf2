"""Cross entropy of hidden states behind a projection to a vocabulary, as one operation that never has all logits at once.

The rows (tokens) pass in chunks: logits of a chunk, their losses, over them their gradients, and by these the gradients of the rows and
of the matrix. So the gradients are there as soon as the loss is; the backward pass only multiplies them by the gradient of the loss.

Shapes: `r` rows, `h` hidden, `v` padded vocabulary, divided over the `t` ranks of a tensor-parallel group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron.mpu.collectives import Pending, all_gather, start_all_reduce, start_reduce_scatter
from megatron.mpu.groups import Group
from megatron.mpu.linear_cross_entropy_rows import RowKernels, Targets, losses_in_place
from megatron.mpu.row_chunks import chunk_rows, is_narrow


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor,
    group: Group,
    *,
    vocab_size: int | None = None,
    sequence_parallel: bool = False,
    kernels: RowKernels | None = None,
) -> Tensor:
    """The sum of `weights` times the cross entropy of hidden weight^T + bias with the labels: a scalar in nats.

    hidden [s, b, h], the same on every rank of `group` ([s/t, b, h], of which each has its own part, under `sequence_parallel`); weight
    [v/t, h]; bias [v/t]; labels int64 and weights [s, b]. The sum is the same on every rank, in fp32 (fp64 for fp64 hidden states);
    `weights` get no gradient. kernels: what does the work between the products on this device, None = plain torch. Its backward pass runs once (else RuntimeError), since it overwrites the gradients that were kept.

    As for `vocab_parallel_cross_entropy` a negative label is ignored, columns from `vocab_size` (default: all) on are padding, and a label
    at or above it has an infinite loss. Raises ValueError when there are fewer columns than `vocab_size`.
    """
    columns = weight.shape[0] * group.size
    if vocab_size is not None and vocab_size > columns:
        raise ValueError(f"vocab_size is {vocab_size}, but the matrix has only {columns} rows over {group.size} ranks")
    task = _Task(labels, weights, group, vocab_size or columns, sequence_parallel, kernels, torch.is_grad_enabled())
    result: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, task)
    return result


@dataclass(frozen=True)
class _Task:
    """The arguments without a gradient; is_training: whether the others may have one."""

    labels: Tensor
    weights: Tensor
    group: Group
    vocab_size: int
    sequence_parallel: bool
    kernels: RowKernels | None
    is_training: bool


class _LinearCrossEntropy(torch.autograd.Function):
    """Keeps the gradients of the sum itself, as multiples of which those of a loss follow."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, task: _Task) -> Tensor:
        wanted = [task.is_training and needed for needed in ctx.needs_input_grad[:3]]
        total, ctx.gradients = _sum_and_gradients(hidden, weight, bias, task, wanted)
        ctx.dtypes = [None if each is None else each.dtype for each in (hidden, weight, bias)]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, ctx.gradients = ctx.gradients, None
        if kept is None:
            raise RuntimeError("the backward pass of linear_cross_entropy runs once: it has overwritten what it needs")
        scaled = (None if each is None else _scale(each, gradient) for each in kept)
        return *(None if each is None else each.to(dtype) for each, dtype in zip(scaled, ctx.dtypes, strict=True)), None


def _sum_and_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, task: _Task, wanted: list[bool]
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """The weighted sum of losses, and its gradients of hidden, weight and bias where they are wanted."""
    whole = all_gather(hidden, task.group, dim=0) if task.sequence_parallel else hidden
    rows = whole.reshape(-1, whole.shape[-1])
    targets, real = _targets(task, columns=weight.shape[0], wide=torch.promote_types(rows.dtype, torch.float32))
    chunks = _chunks(rows.shape[0], row_bytes=weight.shape[0] * rows.itemsize)
    memory = rows.new_empty(chunks[0].stop, weight.shape[0])
    total = targets.coefficients.new_zeros(())
    gradients = _Gradients(rows, weight, bias, wanted, chunks=len(chunks))
    for part in chunks:
        logits = memory[: part.stop - part.start]
        _project(rows[part], weight, bias, out=logits)
        losses = losses_in_place(
            logits, targets.part(part), task.group, real=real, with_gradients=any(wanted), kernels=task.kernels
        )
        total += losses.sum()
        gradients.add_to_rows(part, logits)
        is_last = part.stop == rows.shape[0]
        # The ranks exchange the rows' gradient beside the last products.
        pending = _start_exchange(gradients.of_rows, whole, task) if is_last else None
        gradients.add_to_parameters(part, logits)
    return total, (pending.wait() if pending else None, gradients.of_weight, gradients.of_bias)


class _Gradients:
    """The gradients that are wanted, of rows [r, h], the matrix [v/t, h] and the bias [v/t]; None for the others."""

    def __init__(self, rows: Tensor, weight: Tensor, bias: Tensor | None, wanted: list[bool], *, chunks: int) -> None:
        self._rows, self._weight, self._is_first = rows, weight, True
        dtype = weight.dtype if is_narrow(chunks) else torch.promote_types(weight.dtype, torch.float32)
        self.of_rows = torch.empty_like(rows) if wanted[0] else None
        self.of_weight = torch.empty_like(weight, dtype=dtype) if wanted[1] else None
        self.of_bias = None
        if wanted[2] and bias is not None:
            self.of_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))

    def add_to_rows(self, part: slice, logits: Tensor) -> None:
        """Take in a chunk of gradients of logits [part, v/t]."""
        if self.of_rows is not None:
            torch.mm(logits, self._weight, out=self.of_rows[part])

    def add_to_parameters(self, part: slice, logits: Tensor) -> None:
        """The same for the matrix and the bias."""
        total = self.of_weight
        if total is not None and total.dtype == logits.dtype:
            total.addmm_(logits.T, self._rows[part], beta=0 if self._is_first else 1)
        elif total is not None:
            product = logits.T @ self._rows[part]
            total.copy_(product) if self._is_first else total.add_(product)
        if self.of_bias is not None:
            self.of_bias += logits.sum(dim=0, dtype=self.of_bias.dtype)
        self._is_first = False


def _scale(values: Tensor, factor: Tensor) -> Tensor:
    """Values times a factor in fp32, in place."""
    if factor.device.type == "cpu":
        return values if float(factor) == 1 else values.mul_(factor)
    # A GPU would round a factor without dimensions to the type of what it multiplies.
    return values.mul_(factor.view(1))


def _project(rows: Tensor, weight: Tensor, bias: Tensor | None, *, out: Tensor) -> None:
    if bias is None:
        torch.mm(rows, weight.T, out=out)
    else:
        torch.addmm(bias, rows, weight.T, out=out)


def _start_exchange(row_gradient: Tensor | None, whole: Tensor, task: _Task) -> Pending | None:
    """Begin the sum over the ranks of what each knows by its part of the vocabulary, as hidden states are shaped."""
    if row_gradient is None:
        return None
    start = start_reduce_scatter if task.sequence_parallel else start_all_reduce
    return start(row_gradient.view_as(whole), task.group)


def _targets(task: _Task, *, columns: int, wide: torch.dtype) -> tuple[Targets, int]:
    """(what the rows are compared with, how many of this rank's columns are no padding)."""
    first = task.group.rank * columns
    real = min(max(task.vocab_size - first, 0), columns)
    labels, weights = task.labels.flatten(), task.weights.flatten().to(wide)
    return Targets.of(labels, weights, first=first, real=real, vocab_size=task.vocab_size), real


def _chunks(rows: int, *, row_bytes: int) -> list[slice]:
    size = chunk_rows(rows, row_bytes=row_bytes)
    return [slice(begin, min(begin + size, rows)) for begin in range(0, rows, size)]
