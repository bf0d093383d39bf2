"""Mistakes in what an engine does with losses, gradients, norms, pipeline stages and ZeRO's slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from megatron.data.batch import Batch
from megatron.engine import gradient_norm, pipeline, stage, zero_state
from megatron.engine.base import BaseEngine
from megatron.engine.pipeline import PipelineEngine
from megatron.engine.state import Fragment
from megatron.model.stream import Stream
from megatron.mpu.shard import shard_of
from megatron.optim import param_groups
from tests.distributed.matrix.cell import Cell
from tests.distributed.matrix.mutation import mistake, replaced

Context = AbstractContextManager[Any]


def _replicas(cell: Cell) -> int:
    return cell.grid.data * cell.grid.context


def _is_tied_over_stages(cell: Cell) -> bool:
    return cell.tied and cell.grid.pipe > 1


def _has_replicated_parameters(cell: Cell) -> bool:
    return cell.norm != "non_parametric_layernorm" or cell.biases == "all biases" or cell.positions == "learned"


@mistake(
    "the mean of the ranks' means stands for the mean of all tokens",
    touches=lambda cell: cell.mask == "uneven",
    shows="loss, norm, gradients",
    among=lambda cell: _replicas(cell) > 1 and cell.mask != "documents",
)
def _mean_of_means() -> Context:
    def wrong(engine: BaseEngine, micro_batches: Sequence[Batch]) -> float:
        own = sum(float(engine.objective.weight(batch)) for batch in micro_batches)
        return own * engine.groups.replicas.size

    return replaced((BaseEngine, "_global_weight"), by=wrong)


@mistake(
    "context ranks do not count each other's tokens",
    touches=lambda cell: cell.grid.context > 1,
    shows="loss, norm, gradients",
)
def _weight_of_own_part() -> Context:
    def wrong(engine: BaseEngine, micro_batches: Sequence[Batch]) -> float:
        own = torch.stack([engine.objective.weight(batch).to(torch.float64) for batch in micro_batches]).sum()
        return float(engine._sum(own, engine.groups.data))

    return replaced((BaseEngine, "_global_weight"), by=wrong)


@mistake("gradients of replicas are summed and not averaged", touches=lambda cell: _replicas(cell) > 1, shows="norm")
def _dropped_division() -> Context:
    right = BaseEngine._loss_factor
    return replaced(
        (BaseEngine, "_loss_factor"), by=lambda engine, weight: right(engine, weight) * engine.groups.replicas.size
    )


@mistake("the loss is not divided by the micro-batches", touches=lambda cell: cell.accumulation > 1, shows="norm")
def _undivided_loss() -> Context:
    right = BaseEngine._loss_factor
    return replaced(
        (BaseEngine, "_loss_factor"), by=lambda engine, weight: right(engine, weight) * engine._shape.micro_batches
    )


@mistake(
    "the norm counts replicated parameters on every tensor rank",
    touches=lambda cell: cell.grid.tensor > 1 and _has_replicated_parameters(cell),
    shows="norm, gradients",
    among=lambda cell: cell.zero < 3 and cell.clipping > 0,
)
def _counted_twice() -> Context:
    def wrong(parameter: Tensor) -> bool:
        return not getattr(parameter, "ds_pipe_replicated", False)

    return replaced((gradient_norm, "speaks_for"), by=wrong)


@mistake("the norm counts tied weights on every stage", touches=_is_tied_over_stages, shows="norm")
def _tied_twice() -> Context:
    def wrong(parameter: Tensor) -> bool:
        info = shard_of(parameter)
        return info.is_sharded or info.rank == 0

    return replaced((gradient_norm, "speaks_for"), by=wrong)


@mistake(
    "the norm leaves out tied weights",
    touches=lambda cell: cell.tied,
    shows="norm",
    among=lambda cell: cell.zero < 3,
)
def _tied_missing() -> Context:
    right = gradient_norm.speaks_for
    return replaced(
        (gradient_norm, "speaks_for"), by=lambda parameter: right(parameter) and not shard_of(parameter).tied
    )


@mistake(
    "copies of tied weights do not share gradients", touches=_is_tied_over_stages, shows="norm, gradients, weights"
)
def _stale_copies() -> Context:
    return replaced((pipeline, "_reduce_tied_gradients"), by=lambda library_engine: None)


@mistake(
    "only one copy of tied weights is updated", touches=_is_tied_over_stages, shows="gradients, weights, first moments"
)
def _one_copy_updated() -> Context:
    right = pipeline._reduce_tied_gradients

    def wrong(library_engine: Any) -> None:
        right(library_engine)
        for parameter, _ in library_engine.module.get_tied_weights_and_groups():
            if parameter.ds_pipe_replicated:
                pipeline._accumulated_gradient(library_engine.optimizer, parameter).zero_()

    return replaced((pipeline, "_reduce_tied_gradients"), by=wrong)


@mistake(
    "the last stage takes the labels of the micro-batch before",
    touches=lambda cell: cell.accumulation > 1,
    shows="loss, norm, gradients",
    among=lambda cell: cell.grid.pipe > 0,
)
def _shifted_labels() -> Context:
    right = PipelineEngine._feed

    def wrong(engine: PipelineEngine, micro_batches: Sequence[Batch] | None) -> Iterator[Any] | None:
        pairs = right(engine, micro_batches)
        if pairs is None:
            return None
        inputs, labels = zip(*pairs, strict=True)
        return iter(list(zip(inputs, (labels[-1], *labels[:-1]), strict=True)))

    return replaced((PipelineEngine, "_feed"), by=wrong)


@mistake(
    "a stage forgets the residual it is given", touches=lambda cell: cell.grid.pipe > 1, shows="loss, norm, gradients"
)
def _forgotten_residual() -> Context:
    right = stage.run_layers

    def wrong(module: Any, specs: Sequence[Any], stream: Stream, **options: Any) -> Stream:
        if module.is_first or not specs:
            return right(module, specs, stream, **options)
        first = right(module, specs[:1], stream, **options)
        return right(module, specs[1:], first.with_hidden(first.hidden - stream.hidden), **options)

    return replaced((stage, "run_layers"), by=wrong)


@mistake(
    "stages do not tell each other about documents",
    touches=lambda cell: cell.mask == "documents",
    shows="loss, norm, gradients",
    among=lambda cell: cell.grid.pipe > 1,
)
def _forgotten_documents() -> Context:
    return replaced((Stream, "tensors"), by=lambda stream: (stream.hidden, stream.position_ids))


@mistake(
    "a rank takes the ZeRO slice of its neighbour for its own",
    touches=lambda cell: _replicas(cell) > 1,
    shows="gradients, weights, first moments, second moments",
    among=lambda cell: cell.zero < 3,
)
def _wrong_slice() -> Context:
    def wrong(optimizer: Any) -> Iterator[Fragment]:
        for group, flat in enumerate(zero_state._group_partitions(optimizer)):
            handle = optimizer.real_dp_process_group[group]
            neighbour = (torch.distributed.get_rank(handle) + 1) % torch.distributed.get_world_size(handle)
            begin = neighbour * flat.numel()
            for parameter, offset in zero_state._group_offsets(optimizer, group):
                low, high = max(offset, begin), min(offset + parameter.numel(), begin + flat.numel())
                if low < high:
                    yield Fragment(parameter, low - offset, flat, low - begin, high - low)

    return replaced((zero_state, "_group_fragments"), by=wrong)


@mistake(
    "biases and gains are decayed",
    touches=lambda cell: cell.biases != "no biases" or cell.norm != "non_parametric_layernorm",
    shows="weights",
)
def _decayed_biases() -> Context:
    return replaced((param_groups, "is_decayed"), by=lambda parameter: True)
