"""Cross entropy of some rows of logits and, written over these logits, its gradients: the pointwise part of linear_cross_entropy.py.

It goes through the rows in blocks. On a CPU a block stays in its caches: of all rows as a whole every operation would go through memory.

Shapes: `r` rows, `v` padded vocabulary, `t` tensor-parallel size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.mpu.collectives import start_all_gather
from megatron.mpu.groups import Group
from megatron.mpu.row_chunks import block_rows


@dataclass(frozen=True)
class Targets:
    """What rows of logits are compared with, each field [r, 1].

    column: the label's column on this rank, 0 where another rank has it; is_here: whether this one does; coefficients: what the row's
    loss is multiplied by, in the type of the losses; is_ignored: the label is negative; is_impossible: it is beyond the vocabulary.
    """

    column: Tensor
    is_here: Tensor
    coefficients: Tensor
    is_ignored: Tensor
    is_impossible: Tensor

    @classmethod
    def of(cls, labels: Tensor, weights: Tensor, *, first: int, real: int, vocab_size: int) -> Targets:
        """From int64 labels and weights of rows, both [r]. first: this rank's first column; real: its columns that are no padding."""
        labels = labels.unsqueeze(-1)
        column, is_ignored = labels - first, labels < 0
        is_here = (column >= 0) & (column < real)
        return cls(
            column=column.masked_fill(~is_here, 0),
            is_here=is_here,
            coefficients=weights.unsqueeze(-1).masked_fill(is_ignored, 0),
            is_ignored=is_ignored,
            is_impossible=labels >= vocab_size,
        )

    def part(self, rows: slice) -> Targets:
        """Those of some of the rows."""
        return Targets(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True)
class RowKernels:
    """Both halves of the work as kernels of a device, which need no blocks; between them the ranks exchange what they know of a row.

    statistics, gradient_: with the signatures and numbers of `softmax_statistics` and `softmax_gradient_` in fused_kernels/reference.py.
    """

    statistics: Callable[..., tuple[Tensor, Tensor, Tensor]]
    gradient_: Callable[..., Tensor]


def losses_in_place(
    logits: Tensor,
    targets: Targets,
    group: Group,
    *,
    real: int,
    with_gradients: bool,
    kernels: RowKernels | None = None,
) -> Tensor:
    """Weighted losses [r] of logits [r, v/t], the same on every rank of the group; afterwards the logits are their gradients, if wanted.

    real: this rank's columns that are no padding, which come first; the gradients of the others are 0.
    """
    if kernels is not None:
        return _losses_by_kernels(kernels, logits, targets, group, real=real, with_gradients=with_gradients)
    wide = targets.coefficients.dtype
    size = block_rows(logits.shape[0], row_bytes=real * wide.itemsize, device=logits.device.type)
    scratch = torch.empty(size, real, dtype=wide, device=logits.device)
    blocks = list(_blocks(logits.shape[0], size))
    found = []
    for rows in blocks:
        own, part = logits[rows, :real], targets.part(rows)
        if group.size == 1 and with_gradients:
            measure = _softmax_at_once if _has_quick_softmax(own) else _softmax
            probabilities, statistics = measure(own, part, scratch)
            _write_gradients(logits[rows], probabilities, part)
        else:
            _, statistics = _statistics(own, part, scratch)
        found.append(statistics)
    whole = _over_ranks(torch.cat(found, dim=1), group)
    if group.size > 1 and with_gradients:
        for rows in blocks:
            exponentials = _widened(logits[rows, :real], scratch).sub_(whole[0, rows]).exp_()
            _write_gradients(logits[rows], exponentials.div_(whole[1, rows]), targets.part(rows))
    return _losses(whole, targets)


def _losses_by_kernels(
    kernels: RowKernels, logits: Tensor, targets: Targets, group: Group, *, real: int, with_gradients: bool
) -> Tensor:
    labels = targets.column.masked_fill(~targets.is_here, -1).squeeze(-1)
    own = torch.stack(kernels.statistics(logits, labels, real=real)).unsqueeze(-1)
    whole = _over_ranks(own, group)
    if with_gradients:
        log_partition = (whole[0] + whole[1].log()).squeeze(-1)
        kernels.gradient_(logits, labels, log_partition, targets.coefficients.squeeze(-1), real=real)
    return _losses(whole, targets)


def _blocks(rows: int, size: int) -> Iterator[slice]:
    return (slice(begin, begin + size) for begin in range(0, rows, size))


def _widened(logits: Tensor, scratch: Tensor) -> Tensor:
    return scratch[: logits.shape[0]].copy_(logits)


def _statistics(logits: Tensor, targets: Targets, scratch: Tensor) -> tuple[Tensor, Tensor]:
    """(exp(logits - maximum), statistics [3, r, 1]) of this rank's columns: the largest logit, the sum of the exponentials, the label's
    logit, which is 0 where another rank has it. A rank that has padding alone has the largest logit -inf."""
    values = _widened(logits, scratch)
    if not logits.shape[1]:
        nothing = values.new_zeros(logits.shape[0], 1)
        return values, torch.stack([nothing - torch.inf, nothing, nothing])
    maximum = values.amax(dim=-1, keepdim=True)
    label = values.gather(-1, targets.column).masked_fill_(~targets.is_here, 0)
    exponentials = values.sub_(maximum).exp_()
    return exponentials, torch.stack([maximum, exponentials.sum(dim=-1, keepdim=True), label])


def _softmax(logits: Tensor, targets: Targets, scratch: Tensor) -> tuple[Tensor, Tensor]:
    """(probabilities [r, v], statistics as of `_statistics`) of rows that this rank has whole."""
    exponentials, statistics = _statistics(logits, targets, scratch)
    return exponentials.div_(statistics[1]), statistics


def _has_quick_softmax(logits: Tensor) -> bool:
    """Whether `_softmax_at_once` is worth it: its exponentials are off by up to 20 units of fp32's last place, far below half precision."""
    return logits.device.type == "cpu" and logits.itemsize == 2 and logits.shape[1] > 0


def _softmax_at_once(logits: Tensor, targets: Targets, scratch: Tensor) -> tuple[Tensor, Tensor]:
    """`_softmax` by torch's, whose exponentials take a CPU half as long as `exp`. The largest probability tells their sum."""
    values = _widened(logits, scratch)
    maximum = values.amax(dim=-1, keepdim=True)
    label = values.gather(-1, targets.column).masked_fill_(~targets.is_here, 0)
    probabilities = torch.softmax(values, dim=-1, out=values)
    total = probabilities.amax(dim=-1, keepdim=True).reciprocal_()
    return probabilities, torch.stack([maximum, total, label])


def _over_ranks(statistics: Tensor, group: Group) -> Tensor:
    """The statistics [3, r, 1] of the whole vocabulary from those of each rank's columns, by one exchange."""
    if group.size == 1:
        return statistics
    maxima, sums, labels = start_all_gather(statistics.unsqueeze(0), group).wait().unbind(dim=1)
    maximum = maxima.amax(dim=0)
    return torch.stack([maximum, (sums * (maxima - maximum).exp()).sum(dim=0), labels.sum(dim=0)])


def _losses(statistics: Tensor, targets: Targets) -> Tensor:
    """[r]: log(sum of exp(logit - maximum)) - (label's logit - maximum), times the coefficient; 0 for an ignored label."""
    maximum, total, label = statistics
    losses: Tensor = (total.log() - (label - maximum)).masked_fill(targets.is_impossible, torch.inf)
    return (losses * targets.coefficients).masked_fill(targets.is_ignored, 0).squeeze(-1)


def _write_gradients(logits: Tensor, probabilities: Tensor, targets: Targets) -> None:
    """Over logits [r, v/t]: coefficient * (probability - 1 at the label). `probabilities` are those of the columns that are no padding."""
    real = probabilities.shape[1]
    logits[:, real:] = 0
    if real:
        probabilities.mul_(targets.coefficients)
        probabilities.scatter_add_(-1, targets.column, -targets.coefficients * targets.is_here)
        logits[:, :real] = probabilities
