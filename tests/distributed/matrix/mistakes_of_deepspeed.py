"""Known defects of DeepSpeed 0.19.8, which show when what keeps us from them is taken away."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from megatron.engine import build, library
from megatron.engine.base import BaseEngine
from megatron.model import sequential
from megatron.mpu import shard
from megatron.mpu.shard import ShardInfo
from tests.distributed.matrix import reference
from tests.distributed.matrix.mutation import mistake, replaced

Context = AbstractContextManager[Any]

# An optimizer without ZeRO is none of which weights, moments or the norm could be read.
UNREAD = "norm, saved"


def _stage_zero() -> Context:
    """Stage 0 runs as stage 0, and its optimizer as one that our engine can hold on to."""
    right, deepspeed = build.engine_settings, library.deepspeed

    def settings(base: dict[str, Any], parameters: Any) -> dict[str, Any]:
        told = right(base, parameters)
        return {**told, "zero_optimization": {**told["zero_optimization"], "stage": 0}, "data_types": {}}

    def initialize(**options: Any) -> tuple[Any, ...]:
        engine, optimizer, *rest = deepspeed.initialize(**options)
        if not hasattr(optimizer, "optimizer"):
            optimizer.optimizer = optimizer
        return engine, optimizer, *rest

    stack = ExitStack()
    stack.enter_context(replaced((build, "engine_settings"), by=settings))
    stack.enter_context(replaced((library, "deepspeed"), by=SimpleNamespace(initialize=initialize)))
    stack.enter_context(replaced((BaseEngine, "state_tensors"), by=lambda engine, for_saving=False: {}))
    return stack


@mistake(
    "ZeRO 0 clips wrongly in a pipeline: the norm misses what stages behind the first replicate",
    touches=lambda cell: cell.grid.pipe > 1 and cell.clipping > 0,
    shows="loss",
    among=lambda cell: cell.zero == 0 and cell.grid.pipe > 0 and cell.grid.tensor == 1 and cell.clipping > 0,
    hides=UNREAD,
    precisions=("fp32",),
)
def _stage_zero_in_a_pipeline() -> Context:
    return _stage_zero()


@mistake(
    "ZeRO 0 divides fp16 updates by the loss scale",
    touches=lambda cell: cell.precision == "fp16",
    shows="loss",
    among=lambda cell: cell.zero == 0 and cell.grid.pipe == 0,
    hides=UNREAD,
    precisions=("fp16", "bfloat16"),
)
def _stage_zero_in_fp16() -> Context:
    return _stage_zero()


@mistake(
    "ZeRO 3 leaves parameters without a mark out of the norm",
    touches=lambda cell: cell.zero == 3,
    shows="norm",
    among=lambda cell: cell.grid.tensor > 1,
)
def _without_mark() -> Context:
    def wrong(parameter: Tensor, info: ShardInfo) -> None:
        parameter.shard = info  # type: ignore[attr-defined]
        parameter.model_parallel = parameter.tensor_model_parallel = False  # type: ignore[attr-defined]

    return replaced(*((module, "set_shard") for module in (shard, sequential, reference)), by=wrong)
