"""Cross entropy of logits whose vocabulary is divided among the tensor-parallel ranks, without gathering them.

For one position with logits z and label y:  loss = log(sum_j exp(z_j - m)) - (z_y - m),  m = max_j z_j,  d loss / d z_j = p_j - [j = y].
Columns from `vocab_size` on are padding: they count as z_j = -inf, so the loss does not depend on how much there is.

Shapes: `v` padded vocabulary, `t` tensor-parallel size; leading dimensions (batch, sequence) are free.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.mpu.collectives import all_reduce
from megatron.mpu.groups import Group


def vocab_parallel_cross_entropy(
    logits: Tensor, labels: Tensor, group: Group, *, vocab_size: int | None = None
) -> Tensor:
    """Losses [...] of logits [..., v/t] and int64 labels [...], in fp32 whatever the logits' type (fp64 for fp64 logits).

    A negative label (such as -100) is ignored: its loss and gradient are 0. A label at or above `vocab_size` (default: all columns)
    has probability 0, hence an infinite loss. Raises ValueError when there are fewer columns than `vocab_size`.
    """
    columns = logits.shape[-1] * group.size
    if vocab_size is not None and vocab_size > columns:
        raise ValueError(
            f"vocab_size is {vocab_size}, but the logits have only {columns} columns over {group.size} ranks"
        )
    losses: Tensor = _VocabParallelCrossEntropy.apply(logits, labels, group, vocab_size or columns)
    return losses


class _VocabParallelCrossEntropy(torch.autograd.Function):
    """Keeps the logits as they came (half precision, usually) and log sum exp; the softmax is computed anew for the gradient.

    That is half the memory of an fp32 softmax, and no rounding is added: the logits stay alive anyway while the loss is computed.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, group: Group, vocab_size: int) -> Tensor:
        start = group.rank * logits.shape[-1]
        real = min(max(vocab_size - start, 0), logits.shape[-1])
        maximum = _maximum(logits[..., :real], group)
        label_index = (labels - start).unsqueeze(-1)
        owned = (label_index >= 0) & (label_index < real)
        label_logit = (logits.gather(-1, label_index.masked_fill(~owned, 0)) - maximum).masked_fill(~owned, 0)
        exponentials = torch.sub(logits[..., :real], maximum).exp_().sum(dim=-1, keepdim=True)
        exponentials, label_logit = all_reduce(torch.stack([exponentials, label_logit]), group)
        label_logit = label_logit.masked_fill(labels.unsqueeze(-1) >= vocab_size, -torch.inf)
        log_sum = exponentials.log_()
        ctx.save_for_backward(logits, maximum + log_sum, label_index, owned, labels >= 0)
        ctx.real = real
        losses: Tensor = (log_sum - label_logit).squeeze(-1)
        return losses.masked_fill_(labels < 0, 0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        logits, log_partition, label_index, owned, counted = ctx.saved_tensors
        result = torch.sub(logits, log_partition).exp_()
        result[..., ctx.real :] = 0
        result.scatter_add_(-1, label_index.masked_fill(~owned, 0), -owned.to(result.dtype))
        result.mul_((gradient * counted).unsqueeze(-1))
        return result.to(logits.dtype), None, None, None


def _maximum(logits: Tensor, group: Group) -> Tensor:
    """The largest logit over all ranks [..., 1], at least in fp32; a rank with padding alone contributes -inf."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if logits.shape[-1] == 0:
        local = torch.full((*logits.shape[:-1], 1), -torch.inf, dtype=dtype, device=logits.device)
    else:
        local = logits.detach().amax(dim=-1, keepdim=True).to(dtype)
    return all_reduce(local, group, op=dist.ReduceOp.MAX)
