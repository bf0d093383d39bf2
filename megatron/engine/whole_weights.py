"""Weights that ZeRO 3 holds in pieces, made whole for reading."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from megatron.engine.library import deepspeed

Status = deepspeed.runtime.zero.partition_parameters.ZeroParamStatus


def whole_weights(module: nn.Module) -> AbstractContextManager[Any]:
    """Within it all parameters of `module` hold all their values, to be read and not changed.

    Collective over the replicas where some are in pieces. Those that are whole already stay so: DeepSpeed keeps small ones whole and
    counts on finding them so.
    """
    in_pieces = [each for each in module.parameters() if getattr(each, "ds_status", None) is Status.NOT_AVAILABLE]
    return deepspeed.zero.GatheredParameters(in_pieces) if in_pieces else nullcontext()


def weights_are_whole(module: nn.Module) -> bool:
    """Whether every process holds all values of its parameters at all times: under any stage of ZeRO but the third."""
    return not any(hasattr(parameter, "ds_status") for parameter in module.parameters())
