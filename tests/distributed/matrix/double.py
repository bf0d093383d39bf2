"""The engine in fp64: at that precision what remains between two layouts is a mistake, or below 1e-10.

A configuration knows no fp64, and both DeepSpeed and our engine take master weights, messages, losses and norms to be fp32. Here they
are shown a torch that calls fp64 "fp32"; what they do is left as it is. Only ranks that are forked for it may enter: it is the process
that changes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from megatron.engine import deepspeed_engine, pipeline  # noqa: F401  late imports otherwise, and to be shown another torch
from megatron.engine.library import deepspeed
from megatron.model.spec import DTYPES

ROOMS = ("deepspeed.runtime", "megatron.engine")


class _Torch:
    """torch, but for what it calls fp32."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _float(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64)


@contextmanager
def fp64_engines() -> Iterator[None]:
    """Engines built and run inside compute in fp64 when their configuration says fp32."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(ROOMS)]
    modules = [module for module in modules if vars(module).get("torch") is torch]
    fp32 = deepspeed.runtime.config.DtypeEnum.fp32
    default = torch.get_default_dtype()
    try:
        for module in modules:
            module.torch = _Torch()  # type: ignore[attr-defined]
        fp32._value_ = torch.float64
        torch.set_default_dtype(torch.float64)  # of `torch.Tensor([0.0])`, into which pipeline stages receive the loss
        accelerator = type(deepspeed.accelerator.get_accelerator())
        with (
            patch.dict(DTYPES, fp32=torch.float64),
            patch.object(Tensor, "float", _float),
            patch.object(accelerator, "FloatTensor", torch.DoubleTensor),  # of the norm of offloaded ZeRO-3 gradients
        ):
            yield
    finally:
        torch.set_default_dtype(default)
        fp32._value_ = torch.float32
        for module in modules:
            module.torch = torch  # type: ignore[attr-defined]
