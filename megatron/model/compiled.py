"""Blocks compiled by torch (`compile: true`): what a block computes before and behind the core of attention becomes a graph each.

All layers of one kind and shape share the two graphs, with whatever collectives of tensor parallelism there are in them. A part that
cannot become one graph is an error: nothing falls back silently. The core of attention stays as it is: it is a kernel already, and the
documents of packed samples differ from one micro-batch to the next.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from megatron.errors import NeoXError
from megatron.model.block import Block, Regions

BACKEND = "inductor"
"""What makes kernels of the graphs."""


def compile_blocks(model: nn.Module) -> None:
    """Have the blocks of `model` train compiled from now on; torch compiles when they first run."""
    for module in model.modules():
        if isinstance(module, Block):
            module.compiled = _regions(type(module))


def check_compiler(device: torch.device) -> None:
    """Raise NeoXError where what torch compiles with for this device is missing, or cannot be kept."""
    if device.type == "cpu":
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise NeoXError(
                f'"compile" is true, and the C++ compiler that torch needs for a CPU is missing here ("{compiler}"): install g++, or name '
                "another one in the environment variable CXX, or set compile to false"
            )
    elif importlib.util.find_spec("triton") is None:
        raise NeoXError(
            '"compile" is true, and the package "triton", by which torch compiles for a GPU, is not installed here: '
            "pip install triton, or set compile to false"
        )
    _check_cache(os.environ.get("TORCHINDUCTOR_CACHE_DIR"))


def _check_cache(folder: str | None) -> None:
    """Raise NeoXError where no file can be made in `folder`; None is torch's own, among temporary files."""
    if folder is None:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NeoXError(
            f'"compile" is true, and torch cannot keep what it compiles in "{folder}" ({error.strerror}): name a folder that can be '
            "written in the environment variable TORCHINDUCTOR_CACHE_DIR, or set compile to false"
        ) from error


@functools.cache  # one graph for all layers: torch keeps graphs by function
def _regions(kind: type[Block]) -> Regions:
    return Regions(_compiled(kind.enter), _compiled(kind.leave))


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, compiled as one graph. Its lengths may change (curriculum): from the second one on, one graph serves all others."""
    # Imported here: it brings the compiler along, which takes a second that other runs need not spend.
    from torch._dynamo.exc import TorchDynamoException

    run = torch.compile(function, fullgraph=True, backend=BACKEND)

    @functools.wraps(function)
    def running(*values: Any) -> Any:
        try:
            return run(*values)
        except TorchDynamoException as error:
            cause = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
            raise NeoXError(
                f"torch cannot compile {function.__qualname__} of this model ({type(error).__name__}: {cause[:200]}): set compile to false"
            ) from error

    return running
