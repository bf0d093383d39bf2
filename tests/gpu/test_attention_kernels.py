"""Each kernel of torch's attention, and FlashAttention 3 where it is installed, train on the GPU as plain attention does on the CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.errors import NeoXError
from megatron.model.attention import flash_packages
from megatron.model.attention.base import Attention
from megatron.model.documents import Documents
from megatron.model.positions.none import NoPositions
from megatron.model.spec import BuildContext
from tests.gpu.compare import CPU, furthest, output_and_gradients
from tests.gpu.test_layers import HEAD, HEADS, LENGTH, ROWS, X, attention

pytestmark = pytest.mark.gpu

BF16 = torch.bfloat16
NUMBERS = torch.arange(LENGTH).div(LENGTH // 3, rounding_mode="floor").expand(ROWS, LENGTH)


def attend(layer: Attention, documents: Tensor | None, fused: Tensor) -> Tensor:
    heads = fused.unflatten(-1, (HEADS, HEAD)).permute(1, 2, 0, 3)
    query, key, value = heads, heads.flip(0), heads.flip(2)
    return layer.attend(query, key, value, None, Documents.of(documents))


def run(
    core: str, device: torch.device, dtype: torch.dtype, documents: Tensor | None = None, **options: Any
) -> dict[str, Tensor]:
    layer = attention(core, BuildContext(dtype=dtype, device=device), positions=NoPositions(LENGTH, HEAD), **options)
    numbers = None if documents is None else documents.to(device)
    return output_and_gradients(partial(attend, layer, numbers), X, device=device, dtype=dtype)


@pytest.mark.parametrize("backend", ["flash", "cudnn", "efficient", "math"])
def test_every_kernel_of_torch_trains_in_half_precision(backend: str, device: torch.device) -> None:
    if backend == "cudnn" and torch.cuda.get_device_capability(device) < (8, 0):
        pytest.skip("cuDNN's attention needs compute capability 8.0")
    error, where = furthest(run("flash", device, BF16, sdpa_backend=backend), run("global", CPU, torch.float32))
    assert error <= 4 * torch.finfo(BF16).eps, where


@pytest.mark.parametrize("backend", ["flash", "cudnn"])
def test_a_kernel_that_cannot_is_one_sentence(backend: str, device: torch.device) -> None:
    with pytest.raises(
        NeoXError, match=f'"sdpa_backend" {backend} cannot compute .* in float32, without a mask, on this cuda'
    ):
        run("flash", device, torch.float32, sdpa_backend=backend)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("documents", [None, NUMBERS], ids=["whole", "documents"])
def test_flash_attention_3_trains(window: int | None, documents: Tensor | None, device: torch.device) -> None:
    pytest.importorskip("flash_attn_interface", reason="FlashAttention 3 is not installed")
    query = torch.empty(ROWS, HEADS, LENGTH, HEAD, device=device, dtype=BF16)
    if torch.cuda.get_device_capability(device) != flash_packages.HOPPER:
        pytest.skip("FlashAttention 3 is for compute capability 9.0")
    assert flash_packages.fitting_package(query, has_slopes=False) is flash_packages.find_flash_attn_3()
    found = run("flash", device, BF16, documents, window=window)
    error, where = furthest(found, run("global", CPU, torch.float32, documents, window=window))
    assert error <= 4 * torch.finfo(BF16).eps, where
