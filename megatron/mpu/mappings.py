"""Collectives that autograd can differentiate, named by what they mean; every one is the identity for a group of one.

A tensor inside a tensor-parallel region is either *replicated* (the same on every rank), *partial* (to be summed over the ranks) or
*split* along a dimension. Each function changes one state into another, and its gradient makes the opposite change:

    function                     forward                  backward
    copy_to_tensor_region        nothing                  sum                  replicated -> used by each rank's part
    reduce_from_tensor_region    sum                      nothing              partial    -> replicated
    gather_from_tensor_region    concatenate              own slice            split      -> replicated
    scatter_to_tensor_region     own slice                concatenate          replicated -> split
    gather_sequence              concatenate, dim 0       sum, own slice       split      -> used by each rank's part
    reduce_scatter_sequence      sum, own slice of dim 0  concatenate          partial    -> split
    scatter_sequence             own slice of dim 0       concatenate          replicated -> split
    gather_replicated_sequence   concatenate, dim 0       own slice            split      -> replicated
    trade_pieces                 piece i to rank i        the same             split      -> split another way

The difference between `gather_sequence` and `gather_replicated_sequence` is what follows: in the first, each rank goes on with its
own part of the weights, so that gradients differ between ranks and must be summed; in the second all ranks do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from megatron.mpu.collectives import (
    all_gather,
    all_reduce,
    own_slice,
    start_all_reduce,
    start_all_to_all,
    start_reduce_scatter,
)
from megatron.mpu.groups import Group


def copy_to_tensor_region(x: Tensor, group: Group) -> Tensor:
    """`x` itself, whose gradient is summed over the group: for a replicated tensor that enters sharded computation."""
    return _map(x, group, forward=_identity, backward=all_reduce)


def reduce_from_tensor_region(x: Tensor, group: Group, *, in_place: bool = False) -> Tensor:
    """The sum of `x` over the group.

    `in_place` writes it over `x`, which saves a copy where `x` is a fresh product that nobody else reads (autograd notices if
    somebody does); a leaf that requires a gradient cannot be overwritten.
    """
    # A compiled graph decides itself what is overwritten.
    if in_place and group.size > 1 and x.is_contiguous() and not torch.compiler.is_compiling():
        result: Tensor = _ReduceInPlace.apply(x, group)
        return result
    return _map(x, group, forward=all_reduce, backward=_identity)


def gather_from_tensor_region(x: Tensor, group: Group, *, dim: int = -1) -> Tensor:
    """Every rank's `x` concatenated along `dim`, for computation that is the same on every rank."""
    return _map(x, group, forward=partial(all_gather, dim=dim), backward=partial(own_slice, dim=dim))


def scatter_to_tensor_region(x: Tensor, group: Group, *, dim: int = -1) -> Tensor:
    """This rank's slice of `x` along `dim`. Raises ValueError when it does not divide by the group's size."""
    return _map(x, group, forward=partial(own_slice, dim=dim), backward=partial(all_gather, dim=dim))


def gather_sequence(x: Tensor, group: Group) -> Tensor:
    """[s/t, ...] -> [s, ...], on the way into a column-parallel product (sequence parallelism)."""
    return _map(x, group, forward=partial(all_gather, dim=0), backward=_reduce_scatter)


def reduce_scatter_sequence(x: Tensor, group: Group) -> Tensor:
    """Partial [s, ...] -> summed [s/t, ...], on the way out of a row-parallel product (sequence parallelism).

    Raises ValueError when s does not divide by the group's size.
    """
    return _map(x, group, forward=_reduce_scatter, backward=partial(all_gather, dim=0))


def scatter_sequence(x: Tensor, group: Group) -> Tensor:
    """[s, ...] -> [s/t, ...]: this rank's slice. Raises ValueError when s does not divide by the group's size."""
    return scatter_to_tensor_region(x, group, dim=0)


def gather_replicated_sequence(x: Tensor, group: Group) -> Tensor:
    """[s/t, ...] -> [s, ...], for computation that is the same on every rank."""
    return gather_from_tensor_region(x, group, dim=0)


def trade_pieces(x: Tensor, group: Group) -> Tensor:
    """[n, ...] -> [n, ...]: piece i of dimension 0 goes to rank i, piece j comes from rank j; doing it twice changes nothing.

    Raises ValueError when n does not divide by the group's size.
    """
    return _map(x, group, forward=_all_to_all, backward=_all_to_all)


Collective = Callable[[Tensor, Group], Tensor]


def _map(x: Tensor, group: Group, *, forward: Collective, backward: Collective) -> Tensor:
    if group.size == 1:
        return x
    result: Tensor = _Mapping.apply(x, group, forward, backward)
    return result


class _Mapping(torch.autograd.Function):
    """Applies one collective to the tensor and another one to its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, forward: Collective, backward: Collective) -> Tensor:
        ctx.group, ctx.backward_collective = group, backward
        return forward(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.backward_collective(gradient, ctx.group), None, None, None


class _ReduceInPlace(torch.autograd.Function):
    """Overwrites a partial tensor with its sum over the group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.mark_dirty(x)
        return start_all_reduce(x, group).wait()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _identity(x: Tensor, group: Group) -> Tensor:
    return x.view_as(x)


def _reduce_scatter(x: Tensor, group: Group) -> Tensor:
    return start_reduce_scatter(x, group).wait()


def _all_to_all(x: Tensor, group: Group) -> Tensor:
    return start_all_to_all(x, group).wait()
