"""Linear layers split over the tensor-parallel ranks: by their outputs (column) or by their inputs (row).

A column-parallel layer followed by a row-parallel one needs one reduction over the ranks, after the second:

    x [s, b, h] -> column: each rank [s, b, f/t] -> row: each rank a partial [s, b, h] -> sum (+ bias, once)

Under sequence parallelism the tensors outside the pair are split along the sequence, [s/t, b, h]: the column layer gathers them, the
row layer's sum is scattered again. The names are those of the mathematical y = x A, where A is the transposed `weight`.

Shapes: `in`, `out` features, `t` tensor-parallel size; leading dimensions are free (the first one is `s`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from megatron.mpu.collectives import Pending, all_gather, start_all_gather, start_all_reduce, start_reduce_scatter
from megatron.mpu.groups import SINGLE, Group
from megatron.mpu.mappings import (
    copy_to_tensor_region,
    gather_from_tensor_region,
    gather_sequence,
    reduce_from_tensor_region,
    reduce_scatter_sequence,
)
from megatron.mpu.packed import Product, can_pack, packed_product
from megatron.mpu.products import PLAIN, Products
from megatron.mpu.shard import InitMethod, sharded_parameter


def init_zeros(tensor: Tensor, generator: torch.Generator) -> None:
    """The init method of biases."""
    tensor.zero_()


class ParallelLinear(nn.Module):
    """What both kinds share: this rank's matrix `weight`, and how it is multiplied.

    products: the products of forward and backward pass, set once the layer is built; a `product` that autograd knows, or one for a
    weight that is never trained, takes the place of all three.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    sequence_parallel: bool
    products: Products = PLAIN
    product: Product | None = None

    def pack(self) -> None:
        """Hold the weight in the order that a CPU reads fastest (packed.py); `weight` is empty from then on.

        Nothing happens on another device, and under sequence parallelism, which is for training.
        """
        if can_pack(self.weight) and not self.sequence_parallel:
            self.product = packed_product(self.weight)
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def _multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.product is not None:
            return self.product(x, bias)
        if self.products is PLAIN:
            return functional.linear(x, self.weight, bias)
        # Over one rank it communicates nothing.
        y: Tensor = _ColumnParallelProduct.apply(x, self.weight, bias, SINGLE, False, self.products)
        return y


class ColumnParallelLinear(ParallelLinear):
    """y = x weight^T + bias, of which this rank computes `out / t` of the features.

    x [..., in], the same on every rank ([s/t, ..., in] under `sequence_parallel`) -> [..., out/t] ([..., out] with `gather_output`).

    parts: sizes of the matrices fused along `out` (query, key and value; gate and up projection): each is divided among the ranks by
    itself, and this rank's output is its share of the first part, then of the second, ...; valid_rows: output features that are real,
    the others being vocabulary padding. Raises ValueError when a part does not divide by the group's size.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        group: Group,
        init: InitMethod,
        bias: bool = True,
        parts: tuple[int, ...] = (),
        sequence_parallel: bool = False,
        gather_output: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        valid_rows: int | None = None,
    ) -> None:
        super().__init__()
        if gather_output and len(parts) > 1:
            raise ValueError("gather_output would interleave the fused parts of the ranks: gather each part by itself")
        self.group, self.sequence_parallel, self.gather_output = group, sequence_parallel, gather_output
        make = partial(
            sharded_parameter, group=group, dim=0, parts=parts, valid_rows=valid_rows, dtype=dtype, device=device
        )
        self.weight = make((out_features, in_features), init=init)
        self.bias = make((out_features,), init=init_zeros) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self._output(x, self.bias)

    def without_bias(self, x: Tensor) -> Tensor:
        """What `forward` gives without the bias, for those who add it in one pass with what follows."""
        return self._output(x, None)

    def _output(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.group.size == 1:
            return self._multiply(x, bias)
        if self.product is not None:
            enter = gather_sequence if self.sequence_parallel else copy_to_tensor_region
            y = self.product(enter(x, self.group), bias)
        else:
            y = _ColumnParallelProduct.apply(x, self.weight, bias, self.group, self.sequence_parallel, self.products)
        return gather_from_tensor_region(y, self.group) if self.gather_output else y


class RowParallelLinear(ParallelLinear):
    """y = x weight^T + bias, where this rank holds `in / t` of the input features.

    x [..., in/t] -> [..., out], the same on every rank ([s/t, ..., out] under `sequence_parallel`).

    The bias is whole on every rank and added once, after the reduction. A block that sums several row-parallel products may
    reduce once: `layer.finish(layer.partial(x) + other.partial(z))` and `other.add_bias(...)`.
    Raises ValueError when `in_features` does not divide by the group's size.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        group: Group,
        init: InitMethod,
        bias: bool = True,
        sequence_parallel: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.group, self.sequence_parallel = group, sequence_parallel
        make = partial(sharded_parameter, group=group, dtype=dtype, device=device)
        self.weight = make((out_features, in_features), init=init, dim=1)
        self.bias = make((out_features,), init=init_zeros) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.group.size == 1:
            return self._multiply(x, self.bias)
        return self.finish(self.partial(x))

    def partial(self, x: Tensor) -> Tensor:
        """This rank's product [..., out] of x [..., in/t], before the reduction and without the bias."""
        return self._multiply(x, None)

    def finish(self, partial_sum: Tensor) -> Tensor:
        """Reduce a partial product, or a sum of several, and add this layer's bias. `partial_sum` may be overwritten."""
        return self.add_bias(self.reduce(partial_sum))

    def reduce(self, partial_sum: Tensor) -> Tensor:
        """The sum of `partial_sum` [s, ..., out] over the ranks: [s, ..., out], or [s/t, ..., out] under sequence parallelism.

        `partial_sum` may be overwritten.
        """
        if self.sequence_parallel:
            return reduce_scatter_sequence(partial_sum, self.group)
        # What a library gives may be a view that autograd forbids to overwrite.
        return reduce_from_tensor_region(partial_sum, self.group, in_place=self.product is None)

    def add_bias(self, y: Tensor) -> Tensor:
        """A reduced y plus the bias, if the layer has one."""
        bias = self.reduced_bias()
        return y if bias is None else y + bias

    def reduced_bias(self) -> Tensor | None:
        """The bias [out] as it is added to a reduced product, None without one."""
        if self.bias is None or not self.sequence_parallel:
            return self.bias
        # Each rank sees only its part of the sequence then: the bias's gradient is the sum over the ranks.
        return copy_to_tensor_region(self.bias, self.group)


class _ColumnParallelProduct(torch.autograd.Function):
    """`linear(gather(x), weight, bias)` by some `products`, whose backward communicates beside them.

    The gradient of the input is summed over the ranks while the gradient of the weight is computed. Under sequence parallelism only
    the local part of the input is kept for backward, and gathered anew there while the gradient of the input is computed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        group: Group,
        sequence_parallel: bool,
        products: Products,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.group, ctx.sequence_parallel, ctx.products = group, sequence_parallel, products
        return products.output(all_gather(x, group, dim=0) if sequence_parallel else x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        gather = ctx.sequence_parallel and needs_weight
        input_pending = start_all_gather(x, ctx.group) if gather else Pending(x)
        x_pending = _start_input_reduction(ctx.products.input_gradient(gradient, weight), ctx) if needs_x else None
        rows = gradient.flatten(0, -2)
        weight_gradient = None
        if needs_weight:
            weight_gradient = ctx.products.weight_gradient(rows, input_pending.wait().flatten(0, -2))
        bias_gradient = rows.sum(dim=0) if needs_bias else None
        return x_pending.wait() if x_pending else None, weight_gradient, bias_gradient, None, None, None


def _start_input_reduction(input_gradient: Tensor, ctx: Any) -> Pending:
    reduction = start_reduce_scatter if ctx.sequence_parallel else start_all_reduce
    return reduction(input_gradient, ctx.group)
