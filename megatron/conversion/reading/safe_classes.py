"""What a checkpoint of another program may hold besides tensors and plain values, and what stands for it here.

torch's restricted unpickler builds nothing whose full name is not on its list. Names of DeepSpeed are listed with stand-ins that only keep
what they were given, so that DeepSpeed is neither imported nor run: its classes were renamed and moved over the years, and files outlive them.
"""

from __future__ import annotations

import argparse
import collections
import io
import pathlib
from collections.abc import Callable
from typing import Any

import numpy
import numpy.dtypes
from numpy._core import multiarray

SafeName = tuple[Callable[..., Any], str]
"""What is built, and the full name that it has in a file."""


class StandIn:
    """An object of a class that is not here. arguments: what it was made with; its attributes are those that were saved."""

    def __new__(cls, *arguments: Any, **named: Any) -> StandIn:
        """An object that takes whatever its class took."""
        made = super().__new__(cls)
        made.__dict__["arguments"] = arguments
        return made

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Nothing is done with the arguments."""


_DEEPSPEED = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaleConfig",
    "deepspeed.runtime.fp16.loss_scaler.LossScaleProfile",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.runtime.zero.offload_config.OffloadDeviceEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
    "deepspeed.utils.tensor_fragment.tensor_fragment",
    # Where older versions, and EleutherAI's DeeperSpeed, had the same.
    "deepspeed.pt.loss_scaler.LossScaler",
    "deepspeed.pt.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.bf16_optimizer.fragment_address",
    "deepspeed.runtime.zero.utils.ZeroStageEnum",
    "megatron.fp16.loss_scaler.LossScaler",
    "megatron.fp16.loss_scaler.DynamicLossScaler",
    # The configuration of old runs, which is read from their YAML files instead.
    "megatron.neox_arguments.arguments.NeoXArgs",
)


def safe_names() -> list[Callable[..., Any] | SafeName]:
    """Everything that a file may name besides what torch allows by itself, in the form of `torch.serialization.safe_globals`."""
    return [*_numpy_names(), *_PLAIN, *((_stand_in(name), name) for name in _DEEPSPEED)]


_PLAIN: tuple[SafeName, ...] = (
    (argparse.Namespace, "argparse.Namespace"),
    (collections.defaultdict, "collections.defaultdict"),
    (collections.deque, "collections.deque"),
    (io.BytesIO, "_io.BytesIO"),  # what Transformer Engine keeps beside its weights
    (pathlib.PurePosixPath, "pathlib.PosixPath"),  # a path that does nothing with the disk
    (pathlib.PurePosixPath, "pathlib.PurePosixPath"),
)


def _numpy_names() -> list[SafeName]:
    """Arrays and numbers, as states of random generators hold them, under the names of numpy 1 and 2."""
    functions: list[SafeName] = [
        (getattr(multiarray, function), f"{module}.multiarray.{function}")
        for module in ("numpy.core", "numpy._core")
        for function in ("_reconstruct", "scalar")
    ]
    types: list[SafeName] = [
        (kind, f"numpy.dtypes.{name}")
        for name, kind in vars(numpy.dtypes).items()
        if name.endswith("DType") and isinstance(kind, type)
    ]
    return [*functions, *types, (numpy.ndarray, "numpy.ndarray"), (numpy.dtype, "numpy.dtype")]


def _stand_in(name: str) -> type[StandIn]:
    """A class of its own for each name, so that the objects can be told apart."""
    module, _, qualified_name = name.rpartition(".")
    return type(qualified_name, (StandIn,), {"__module__": module})
