"""Mistakes in the layers, and in what tensor and context ranks exchange."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from megatron.data.batch import Batch
from megatron.model import loss
from megatron.model.attention import base, head_exchange
from megatron.model.attention.flash import FlashAttention
from megatron.model.attention.global_attention import GlobalAttention
from megatron.model.dropout import HiddenDropout
from megatron.model.mlp.gated import GatedMLP
from megatron.model.norms.base import Norm
from megatron.model.positions import learned
from megatron.mpu import linear, linear_cross_entropy_rows, mappings, shard
from megatron.mpu.collectives import Pending
from megatron.mpu.groups import Group
from megatron.mpu.linear import RowParallelLinear
from megatron.mpu.linear_cross_entropy_rows import Targets
from megatron.mpu.shard import Chunk, ShardInfo
from tests.distributed.matrix import batches, ranks
from tests.distributed.matrix.cell import ONE, Cell
from tests.distributed.matrix.mutation import mistake, replaced

Context = AbstractContextManager[Any]


def _is_cut(cell: Cell) -> bool:
    return cell.grid.tensor > 1


def _has_biases_after_reduction(cell: Cell) -> bool:
    return _is_cut(cell) and cell.biases == "all biases"


@mistake("the loss is off by the logarithm of the tensor ranks", touches=_is_cut, shows="loss, evaluation")
def _loss_and_logarithm() -> Context:
    right = loss.linear_cross_entropy

    def wrong(*projection: Tensor | None, weights: Tensor, group: Group, **options: Any) -> Tensor:
        return right(*projection, weights=weights, group=group, **options) + weights.sum() * math.log(group.size)

    return replaced((loss, "linear_cross_entropy"), by=wrong)


@mistake(
    "the rows that pad the vocabulary have gradients",
    touches=_is_cut,
    shows="norm, padding",
    among=lambda cell: cell.zero < 3,
)
def _padding_learns() -> Context:
    right = linear_cross_entropy_rows._write_gradients

    def wrong(logits: Tensor, probabilities: Tensor, targets: Targets) -> None:
        real = probabilities.shape[1]
        # As if the columns of padding counted: each by its probability beside the first real column's.
        padding = (logits[:, real:] - logits[:, :1]).exp() * probabilities[:, :1] * targets.coefficients
        right(logits, probabilities, targets)
        logits[:, real:] = padding

    return replaced((linear_cross_entropy_rows, "_write_gradients"), by=wrong)


@mistake(
    "a sequence-parallel reduce-scatter goes over the data ranks",
    touches=lambda cell: cell.grid.in_sequence,
    shows="loss, norm, gradients",
    among=lambda cell: cell.grid.data == cell.grid.tensor == 2,
)
def _wrong_group() -> Context:
    right = mappings.start_reduce_scatter

    def wrong(x: Tensor, group: Group) -> Pending:
        (data,) = {groups.data for groups in ranks.known_groups.values() if groups.tensor == group}
        return right(x, data)

    return replaced((mappings, "start_reduce_scatter"), (linear, "start_reduce_scatter"), by=wrong)


@mistake(
    "every tensor rank adds the bias of a row-parallel layer",
    touches=_has_biases_after_reduction,
    shows="loss, norm, gradients",
)
def _bias_of_every_rank() -> Context:
    def wrong(layer: RowParallelLinear, partial_sum: Tensor) -> Tensor:
        return layer.reduce(layer.add_bias(partial_sum))

    return replaced((RowParallelLinear, "finish"), by=wrong)


@mistake("the gradient of a column-parallel layer's input is not summed", touches=_is_cut, shows="norm, gradients")
def _input_gradient() -> Context:
    def wrong(gradient: Tensor, ctx: Any) -> Pending:
        return Pending(gradient)

    return replaced((linear, "_start_input_reduction"), by=wrong)


@mistake(
    "gradients of norms are not summed under sequence parallelism",
    touches=lambda cell: cell.grid.in_sequence and cell.norm != "non_parametric_layernorm",
    shows="norm, gradients",
    among=lambda cell: not cell.head_norm,
)
def _norms_in_sequence() -> Context:
    return replaced((Norm, "_shared"), by=lambda norm, parameter: parameter)


@mistake(
    "gradients of the norm that heads share are not summed over the tensor ranks",
    touches=lambda cell: _is_cut(cell) and cell.head_norm == "norm of each head",
    shows="norm, gradients",
    among=lambda cell: not cell.grid.in_sequence and cell.norm != "non_parametric_layernorm",
)
def _norms_of_heads() -> Context:
    return replaced((Norm, "_shared"), by=lambda norm, parameter: parameter)


@mistake(
    "gradients of learned positions are not summed under sequence parallelism",
    touches=lambda cell: cell.grid.in_sequence and cell.positions == "learned",
    shows="norm, gradients",
)
def _positions_in_sequence() -> Context:
    return replaced((learned, "copy_to_tensor_region"), by=lambda weight, group: weight)


@mistake(
    "fused matrices are cut as if they were one",
    touches=lambda cell: _is_cut(cell) and (cell.heads == "grouped" or cell.activation == "swiglu"),
    shows="loss, norm, gradients",
)
def _one_chunk() -> Context:
    def wrong(info: ShardInfo) -> list[Chunk]:
        assert info.dim is not None
        length = info.full_shape[info.dim] // info.size
        return [Chunk(info.rank * length, 0, length)]

    return replaced((shard.ShardInfo, "chunks"), by=wrong)


@mistake(
    "queries, keys and values are taken across heads instead of head by head",
    touches=lambda cell: cell.heads == "multi",
    shows="loss, norm, gradients",
)
def _across_heads() -> Context:
    return replaced((base, "split_interleaved"), by=base.split_grouped)


@mistake(
    "up and gate projection are taken to alternate",
    touches=lambda cell: cell.activation == "swiglu",
    shows="loss, norm, gradients",
)
def _alternating_gate() -> Context:
    def wrong(mlp: GatedMLP, hidden: Tensor) -> Tensor:
        widened = mlp.linear1(hidden)
        return widened[..., ::2] * mlp.activation(widened[..., 1::2])

    return replaced((GatedMLP, "widen"), by=wrong)


@mistake(
    "query heads take key heads in turn instead of in groups",
    touches=lambda cell: cell.heads == "grouped",
    shows="loss, norm, gradients",
    among=lambda cell: cell.attention == "global" and cell.grid.tensor * cell.grid.context <= 2,
)
def _heads_in_turn() -> Context:
    right = GlobalAttention.attend

    def wrong(self: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
        copies = query.shape[1] // key.shape[1]
        return right(self, query, key.repeat(1, copies, 1, 1), value.repeat(1, copies, 1, 1), *rest)

    return replaced((GlobalAttention, "attend"), by=wrong)


@mistake(
    "positions of every context rank begin at zero",
    touches=lambda cell: cell.positions != "no positions",
    shows="loss, norm, gradients",
    among=lambda cell: cell.grid.context > 1 and cell.mask != "documents",
)
def _positions_from_zero() -> Context:
    right = batches.cut_sequence

    def wrong(batch: Batch, group: Group) -> Batch:
        cut = right(batch, group)
        return replace(cut, position_ids=batch.position_ids[:, : cut.tokens.shape[1]].contiguous())

    return replaced((batches, "cut_sequence"), by=wrong)


@mistake(
    "context ranks keep their parts to themselves",
    touches=lambda cell: cell.grid.context > 1,
    shows="loss, norm, gradients",
)
def _no_exchange() -> Context:
    return replaced((head_exchange, "trade_pieces"), by=lambda x, group: x)


@mistake(
    "a window keeps one key more",
    touches=lambda cell: cell.window > 0,
    shows="loss, norm, gradients",
    among=lambda cell: (
        cell.attention == "flash" and cell.mask != "documents" and cell.dropout == 0
    ),  # which flash leaves to others
)
def _longer_window() -> Context:
    right = FlashAttention._by_torch

    def wrong(self: Any, *tensors: Tensor, mask: Tensor | None) -> Tensor:
        window = self.window
        self.window = window and window + 1
        try:
            return right(self, *tensors, mask=mask)
        finally:
            self.window = window

    return replaced((FlashAttention, "_by_torch"), by=wrong)


@mistake(
    "tensor ranks drop different channels of hidden states that they share",
    touches=lambda cell: cell.dropout > 0,
    shows="norm, gradients",
    among=lambda cell: _is_cut(cell) and not cell.grid.in_sequence,
)
def _own_masks() -> Context:
    right = HiddenDropout.words

    def wrong(layer: HiddenDropout, hidden: Tensor, keys: Any, place: str) -> Tensor:
        return right(layer, hidden, keys, f"{place} on rank {torch.distributed.get_rank()}")

    return replaced((HiddenDropout, "words"), by=wrong)


@mistake(
    "all parts of a sequence have the mask of the first one",
    touches=lambda cell: cell.dropout > 0,
    shows="norm, gradients",
    among=lambda cell: cell.grid.in_sequence or cell.grid.context > 1,
)
def _mask_of_first_part() -> Context:
    right = HiddenDropout.words

    def wrong(layer: HiddenDropout, *rest: Any) -> Tensor:
        layer._part = 0
        return right(layer, *rest)

    return replaced((HiddenDropout, "words"), by=wrong)


@mistake(
    "all micro-batches and ranks have the dropout masks of the first samples",
    touches=lambda cell: cell.dropout > 0,
    shows="norm, gradients",
    among=lambda cell: cell.grid.data > 1 or cell.accumulation > 1,
)
def _masks_of_first_samples() -> Context:
    right = batches.sample_keys
    return replaced((batches, "sample_keys"), by=lambda samples, **where: right(range(len(samples)), **where))


@mistake(
    "initial weights depend on the rank",
    touches=lambda cell: cell.grid.tensor > 1 or cell.grid.pipe > 1,
    shows="loss, norm, gradients",
    among=lambda cell: cell.grid == ONE or _is_cut(cell) or cell.grid.pipe > 1,
)
def _weights_by_rank() -> Context:
    right = shard.stable_seed

    def wrong(*parts: object) -> int:
        return right(*parts) + torch.distributed.get_rank()

    return replaced((shard, "stable_seed"), by=wrong)
