"""Packed documents that are kept apart are, on the GPU too, the documents alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from megatron.data.batch import Batch
from megatron.model.spec import BuildContext
from tests.gpu.compare import CPU, FP32_LIMIT, distance, furthest
from tests.unit.model.builders import build_args, build_model
from tests.unit.model.packed import ALONE, documents_of, gradients_of, packed

pytestmark = pytest.mark.gpu

HEAD = 16  # the smallest that FlexAttention takes
CORES = ("global", "flash", "flex")
SHAPES = ((4, "rotary"), (2, "rotary"), (4, "alibi"), (2, "alibi"))


def on(device: torch.device, batch: Batch) -> Batch:
    return replace(batch, **{name: value.to(device) for name, value in vars(batch).items() if value is not None})


def gradients(
    core: str, batches: list[Batch], device: torch.device, dtype: torch.dtype, kv_heads: int, positions: str
) -> dict[str, Tensor]:
    args = build_args(attention_config=[[[core], "all"]], num_kv_heads=kv_heads, pos_emb=positions, head_dim=HEAD)
    model = build_model(args, context=BuildContext(dtype=dtype, device=device))
    return gradients_of(model, [on(device, batch) for batch in batches])[1]


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(("kv_heads", "positions"), SHAPES)
def test_packed_gradients_are_those_of_documents_alone_on_the_cpu(
    core: str, kv_heads: int, positions: str, device: torch.device
) -> None:
    alone = gradients("global", list(documents_of(packed(ALONE))), CPU, torch.float32, kv_heads, positions)
    found = gradients(core, [packed(ALONE)], device, torch.float32, kv_heads, positions)
    error, where = furthest(found, alone)
    assert error <= FP32_LIMIT, where


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(("kv_heads", "positions"), SHAPES)
def test_half_precision_approximates_it(
    core: str, kv_heads: int, positions: str, dtype: torch.dtype, device: torch.device
) -> None:
    """Also with the flash-attn package, where it is installed."""
    alone = gradients("global", list(documents_of(packed(ALONE))), CPU, torch.float32, kv_heads, positions)
    found = gradients(core, [packed(ALONE)], device, dtype, kv_heads, positions)
    error, where = furthest(found, alone, measure=distance)
    assert error <= 16 * torch.finfo(dtype).eps, where
