"""Collectives on plain tensors and objects, without gradients; every one is the identity for a group of one.

The tensor collectives return new tensors and leave their input alone. Those named `start_*` return at once, so that computation may
run beside the communication; `Pending.wait` gives the result. Gloo (on CPU) and NCCL both offer every collective used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.mpu.groups import Group

# PyTorch 2.13 renamed these two and warns about the old names; older releases have only the old ones.
_all_gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter_into = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True)
class Pending:
    """A collective under way. It keeps its `source` alive, which the communication still reads."""

    result: Tensor
    work: dist.Work | None = None
    source: Tensor | None = None

    def wait(self) -> Tensor:
        """The result, once the communication has finished (on a GPU: once the current stream may use it)."""
        if self.work is not None:
            self.work.wait()
        return self.result


@dataclass(frozen=True)
class PendingInGraph(Pending):
    """A collective in a graph that is being compiled; the group must be known by its name there."""

    def wait(self) -> Tensor:
        """See Pending.wait."""
        result: Tensor = torch.ops._c10d_functional.wait_tensor(self.result)
        return result


def start_all_reduce(x: Tensor, group: Group) -> Pending:
    """Begin the sum of `x` over the group. `x` is given away: it may be overwritten with the sum."""
    if group.size == 1:
        return Pending(x)
    x = x.contiguous()
    if torch.compiler.is_compiling():
        return PendingInGraph(torch.ops._c10d_functional.all_reduce(x, "sum", group.name))
    return Pending(x, dist.all_reduce(x, group=group.handle, async_op=True))


def start_all_gather(x: Tensor, group: Group) -> Pending:
    """Begin the concatenation of every rank's `x` [n, ...] along dimension 0: [n * size, ...]."""
    if group.size == 1:
        return Pending(x)
    x = x.contiguous()
    if torch.compiler.is_compiling():
        return PendingInGraph(torch.ops._c10d_functional.all_gather_into_tensor(x, group.size, group.name))
    result = x.new_empty((x.shape[0] * group.size, *x.shape[1:]))
    return Pending(result, _all_gather_into(result, x, group=group.handle, async_op=True), source=x)


def start_reduce_scatter(x: Tensor, group: Group) -> Pending:
    """Begin the sum of `x` [n, ...] over the group, of which each rank gets its slice of dimension 0: [n / size, ...].

    Raises ValueError when n does not divide by the group's size.
    """
    if group.size == 1:
        return Pending(x)
    x = x.contiguous()
    length = slice_length(x, group, dim=0)
    if torch.compiler.is_compiling():
        return PendingInGraph(torch.ops._c10d_functional.reduce_scatter_tensor(x, "sum", group.size, group.name))
    result = x.new_empty((length, *x.shape[1:]))
    return Pending(result, _reduce_scatter_into(result, x, group=group.handle, async_op=True), source=x)


def start_sum_of_own_slice(x: Tensor, group: Group) -> Pending:
    """Begin to make this rank's slice of `x` [n] (contiguous) the sum of all ranks' `x`, in place; the rest of `x` is then worthless.

    Raises ValueError when n does not divide by the group's size. On a CPU all of `x` is summed: there gloo sums all of a copy to scatter it.
    """
    if group.size == 1 or x.device.type == "cpu":
        return start_all_reduce(x, group)
    length = slice_length(x, group, dim=0)
    own = x.narrow(0, group.rank * length, length)
    return Pending(own, _reduce_scatter_into(own, x, group=group.handle, async_op=True), source=x)


def start_fill_from_slices(x: Tensor, group: Group) -> Pending:
    """Begin to fill `x` [n] (contiguous) with each rank's own slice of it, in place. Raises ValueError as `start_sum_of_own_slice`."""
    if group.size == 1:
        return Pending(x)
    length = slice_length(x, group, dim=0)
    own = x.narrow(0, group.rank * length, length)
    return Pending(x, _all_gather_into(x, own, group=group.handle, async_op=True))


def start_all_to_all(x: Tensor, group: Group) -> Pending:
    """Begin to give piece i of `x` [n, ...], cut along dimension 0, to rank i; piece j of the result [n, ...] is what rank j gave us.

    Raises ValueError when n does not divide by the group's size.
    """
    if group.size == 1:
        return Pending(x)
    x = x.contiguous()
    slice_length(x, group, dim=0)
    result = torch.empty_like(x)
    return Pending(result, dist.all_to_all_single(result, x, group=group.handle, async_op=True), source=x)


def all_reduce(x: Tensor, group: Group, *, op: Any = dist.ReduceOp.SUM) -> Tensor:
    """The sum (or another `op`, such as `dist.ReduceOp.MAX`) of `x` over the group, as a new tensor."""
    if group.size == 1:
        return x
    if torch.compiler.is_compiling() and op == dist.ReduceOp.SUM:
        return start_all_reduce(x, group).wait()
    result = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result, op=op, group=group.handle)
    return result


def all_gather(x: Tensor, group: Group, *, dim: int) -> Tensor:
    """Every rank's `x` concatenated along `dim` in rank order."""
    gathered = start_all_gather(x, group).wait()
    if group.size == 1 or dim % x.dim() == 0:
        return gathered
    return torch.cat(gathered.chunk(group.size, dim=0), dim=dim)


def own_slice(x: Tensor, group: Group, *, dim: int) -> Tensor:
    """This rank's contiguous slice of `x` along `dim`, without communication.

    Raises ValueError when the dimension does not divide by the group's size.
    """
    if group.size == 1:
        return x
    length = slice_length(x, group, dim=dim)
    # A copy, because a view would keep the whole tensor in memory.
    return x.narrow(dim, group.rank * length, length).clone(memory_format=torch.contiguous_format)


def slice_length(x: Tensor, group: Group, *, dim: int) -> int:
    """How long one rank's share of dimension `dim` is. Raises ValueError when it does not divide by the group's size."""
    length, rest = divmod(x.shape[dim], group.size)
    if rest:
        raise ValueError(
            f"dimension {dim} of a tensor of shape {tuple(x.shape)} cannot be divided among {group.size} ranks: "
            f"its size must be a multiple of {group.size}"
        )
    return length


@overload
def all_reduce_sum(value: Tensor, group: Group) -> Tensor: ...


@overload
def all_reduce_sum(value: float, group: Group) -> float: ...


def all_reduce_sum(value: Tensor | float, group: Group) -> Tensor | float:
    """The sum of a tensor or a number over the group; a number is summed in float64 and returned as a float."""
    if isinstance(value, Tensor):
        return all_reduce(value, group)
    return all_reduce_sums([value], group)[0]


def all_reduce_sums(values: Sequence[float], group: Group) -> list[float]:
    """The sums of several numbers over the group, each by itself and in float64, by one collective."""
    if group.size == 1:
        return [float(value) for value in values]
    totals = torch.tensor(values, dtype=torch.float64, device=_message_device(group))
    dist.all_reduce(totals, group=group.handle)
    return list(totals.tolist())


def all_gather_objects(value: Any, group: Group) -> list[Any]:
    """Every rank's picklable `value`, in rank order."""
    if group.size == 1:
        return [value]
    values: list[Any] = [None] * group.size
    dist.all_gather_object(values, value, group=group.handle)
    return values


def barrier(group: Group) -> None:
    """Return when every rank of the group has come here."""
    if group.size > 1:
        dist.barrier(group=group.handle)


def _message_device(group: Group) -> torch.device:
    """Where small host values travel: the CPU when the group can (no wait for the GPU's queue), else the current GPU."""
    if "cpu:" in str(dist.get_backend_config(group.handle)):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
