"""The parts of one parameter that tensor-parallel ranks of GPT-NeoX hold, in our order of rows -> the full tensor.

How a parameter is cut is what our own parameters say (`ShardInfo`), as both programs cut alike: rows of the first projections (each of the
fused matrices by itself), columns of the second ones, rows of the vocabulary. What every rank has whole comes in two kinds:

* norms and, without `gpt_j_residual`, the biases of the second projections: copies of one tensor, of which each rank uses its own behind the
  reduction. Copies that drifted apart (GPT-NeoX never synchronises them; those of GPT-NeoX-20B differ) have no single value that computes the
  same; their mean is what GPT-NeoX's own tools take for norms.
* with `gpt_j_residual`, the biases of the second projections: GPT-NeoX adds a rank's copy to its partial sum, in front of the one reduction of
  a block. What the model computes is the sum of the copies, also where they are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from megatron.mpu.shard import ShardInfo

_SECOND_PROJECTIONS = ("attention.dense.bias", "mlp.linear2.bias")


def is_second_bias(parameter: str) -> bool:
    """Whether a parameter (`"2.mlp.linear2.bias"`) is the bias of a projection that is cut along its inputs."""
    return parameter.partition(".")[2] in _SECOND_PROJECTIONS


def their_cut(info: ShardInfo) -> ShardInfo:
    """How GPT-NeoX cuts a parameter: as we do, except for the reward head, which ours have whole and theirs cut along its inputs."""
    return replace(info, dim=1) if info.name.endswith(".rm_linear.weight") else info


def merged(parts: Sequence[Tensor], info: ShardInfo) -> Tensor:
    """Ranks' parts of a parameter that is cut -> the full tensor. Raises ValueError when their shapes are not those of this cut."""
    ranks = [replace(info, rank=rank, size=len(parts)) for rank in range(len(parts))]
    if any(tuple(part.shape) != rank.local_shape for part, rank in zip(parts, ranks, strict=True)):
        raise ValueError(
            f"{[tuple(part.shape) for part in parts]} are not the parts of {info.full_shape} on {len(parts)} ranks"
        )
    if len(parts) == 1:
        return parts[0]
    assert info.dim is not None
    full = torch.empty(info.full_shape, dtype=parts[0].dtype)
    for part, rank in zip(parts, ranks, strict=True):
        for chunk in rank.chunks():
            into = full.narrow(info.dim, chunk.full_start, chunk.length)
            into.copy_(part.narrow(info.dim, chunk.local_start, chunk.length))
    return full


def merged_rows(parts: Sequence[Tensor], rows: int) -> Tensor:
    """Ranks' rows of the vocabulary -> its first `rows` rows; those behind are padding."""
    full = parts[0] if len(parts) == 1 else torch.cat(tuple(parts))
    return full[:rows]


def summed(copies: Sequence[Tensor]) -> Tensor:
    """The sum of the ranks' copies, rounded once."""
    if len(copies) == 1:
        return copies[0]
    return torch.stack(tuple(copies)).double().sum(dim=0).to(copies[0].dtype)


def common(copies: Sequence[Tensor]) -> Tensor:
    """The one value of copies that are equal to the bit; else their mean, rounded once."""
    if are_equal(copies):
        return copies[0]
    return torch.stack(tuple(copies)).double().mean(dim=0).to(copies[0].dtype)


def are_equal(copies: Sequence[Tensor]) -> bool:
    """Whether copies are equal to the bit."""
    return all(torch.equal(copy, copies[0]) for copy in copies[1:])


def deviation(copies: Sequence[Tensor]) -> float:
    """How far copies are apart: their largest difference, as a part of the largest value."""
    values = torch.stack(tuple(copies)).double()
    spread = (values.max(dim=0).values - values.min(dim=0).values).max()
    return float(spread / values.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
