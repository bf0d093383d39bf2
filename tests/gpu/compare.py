"""The same computation on two devices, and how far its results are apart."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from megatron.mpu.shard import shard_of

CPU = torch.device("cpu")

# Between the fp32 results of two devices, which differ in the order of sums alone: measured against fp64, the layers and models of
# these tests are at most 4e-6 off in fp32, and at least 5e-4 with TF32 products.
FP32_LIMIT = 5e-5


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest difference between two tensors on any devices, relative to the largest expected value."""
    found, expected = (x.detach().to(CPU, torch.float64) for x in (found, expected))
    return ((found - expected).abs().max() / expected.abs().max()).item()


def distance(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference between two tensors on any devices, relative to the norm of the expected one."""
    found, expected = (x.detach().to(CPU, torch.float64) for x in (found, expected))
    return ((found - expected).norm() / expected.norm()).item()


def output_and_gradients(
    function: Callable[[Tensor], Tensor], x: Tensor, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """`function` of `x` on a device, and the gradients of a fixed weighted sum of the output: of x, and of a module's parameters."""
    x = x.to(device, dtype, copy=True).requires_grad_()
    output = function(x)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    (output * weights).sum().backward()
    assert output.device == device
    assert output.dtype == dtype
    assert x.grad is not None
    return {"output": output.detach(), "gradient of x": x.grad, **gradients(function)}


def gradients(module: object) -> dict[str, Tensor]:
    """The gradients of a module's parameters by layout-free name; none of a plain function."""
    parameters = list(module.parameters()) if isinstance(module, nn.Module) else []
    return {shard_of(each).name: each.grad for each in parameters if each.grad is not None}


def furthest(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    measure: Callable[[Tensor, Tensor], float] = deviation,
) -> tuple[float, str]:
    """How far the worst of several results is off, and which one that is."""
    assert set(found) == set(expected)
    return max((measure(found[name], expected[name]), name) for name in expected)


@contextlib.contextmanager
def never_waiting(device: torch.device) -> Iterator[None]:
    """Within it, whatever makes the CPU wait for the GPU is an error, as far as torch notices: values read back, blocking copies."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
