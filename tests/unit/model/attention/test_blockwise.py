"""Attention in blocks of queries: values and gradients of plain attention, as exact as torch's, in memory of a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from megatron.model.attention import blockwise
from megatron.model.attention.blockwise import blockwise_attention
from megatron.model.attention.mask import causal_mask

CPU = torch.device("cpu")
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def heads(rows: int, count: int, kv_count: int, length: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys, values, and a gradient of the result, side by side in memory as the fused projection writes them."""
    generator = torch.Generator().manual_seed(0)
    fused = torch.randn(length, rows, 2 * (count + kv_count), width, dtype=torch.float64, generator=generator)
    return list(fused.to(dtype).permute(1, 2, 0, 3).split((count, kv_count, kv_count, count), dim=1))


def results(attend: Attend, tensors: list[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """The result, and the gradients of queries, keys and values."""
    *inputs, gradient = (tensor.to(dtype or tensor.dtype) for tensor in tensors)
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    mixed = attend(*inputs)
    return [mixed.detach(), *torch.autograd.grad(mixed, inputs, gradient)]


def plain(window: int | None = None, slopes: Tensor | None = None) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        length = query.shape[2]
        mask = torch.zeros(length, length, dtype=query.dtype)
        if slopes is not None:
            places = torch.arange(length)
            mask = -slopes[:, None, None] * (places[:, None] - places)
        hidden = ~causal_mask(length, length, window=window, device=CPU)
        mask = mask.masked_fill(hidden, float("-inf"))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)

    return attend


SHAPES = [  # more blocks than one, the last one shorter; more chunks of heads than one; fewer tokens than a block
    (2, 4, 4, 300, 8, None),
    (2, 4, 2, 257, 8, None),
    (2, 4, 1, 300, 4, 7),
    (1, 2, 2, 300, 4, 129),
    (1, 4, 2, 300, 4, 250),
    (2, 2, 2, 5, 4, None),
    (1, 2, 1, 1, 4, 1),
]


@pytest.mark.parametrize("keep_weights", [False, True])
@pytest.mark.parametrize("is_biased", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_give_the_values_and_gradients_of_all_scores(
    shape: Any, is_biased: bool, keep_weights: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    *sizes, window = shape
    monkeypatch.setattr(blockwise, "SCORES_PER_THREAD", 3 * 128 * 300 // torch.get_num_threads())
    tensors = heads(*sizes, torch.float64)
    slopes = torch.tensor([2.0**-head for head in range(shape[1])], dtype=torch.float64) if is_biased else None

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return blockwise_attention(query, key, value, window=window, slopes=slopes, keep_weights=keep_weights)

    for found, expected in zip(results(attend, tensors), results(plain(window, slopes), tensors), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_it_is_as_exact_as_torchs_kernel(dtype: torch.dtype, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against fp64 of the same inputs, in the norm of the error. Both round weights and their gradients to bf16 before a product; torch keeps gradients
    of weights in fp32 until then, so that a gradient of queries here may have half as much error again; that of keys and values has less. Scores
    of sixteen and more show whether they were rounded to bf16 before the softmax: that is an error of 6% of a weight. Many blocks show how their
    sums are added up."""
    monkeypatch.setattr(blockwise, "FEWEST_QUERIES", 16)
    monkeypatch.setattr(blockwise, "MOST_QUERIES", 16)
    tensors = heads(1, 4, 4, 384, 64, dtype)
    tensors[0] = tensors[0] * size
    exact = results(plain(), tensors, torch.float64)

    def errors(attend: Attend) -> list[float]:
        return [
            float((found.double() - value).norm()) for found, value in zip(results(attend, tensors), exact, strict=True)
        ]

    torchs = errors(lambda *inputs: F.scaled_dot_product_attention(*inputs, is_causal=True))
    for found, expected in zip(errors(blockwise_attention), torchs, strict=True):
        assert found <= 1.5 * expected


def test_distances_are_not_rounded_to_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 256 that would be by whole tokens: a score off by a slope for each, and a weight by two thirds."""
    monkeypatch.setattr(blockwise, "FEWEST_QUERIES", 512)
    tensors, slopes = heads(1, 2, 2, 512, 4, torch.bfloat16), torch.tensor([1.0, 0.5])
    exact = results(plain(slopes=slopes.double()), tensors, torch.float64)
    found = results(lambda *inputs: blockwise_attention(*inputs, slopes=slopes), tensors)
    for mine, value in zip(found, exact, strict=True):
        assert float((mine.double() - value).norm() / value.norm()) < 0.01


def test_it_computes_what_it_kept_weights_for_without_them() -> None:
    tensors = heads(2, 4, 2, 200, 16, torch.bfloat16)
    kept = results(lambda *inputs: blockwise_attention(*inputs, keep_weights=True), tensors)
    for again, before in zip(results(blockwise_attention, tensors), kept, strict=True):
        assert torch.equal(again, before)


def test_the_result_lies_as_the_output_projection_reads_it() -> None:
    query, key, value, _ = heads(2, 4, 2, 5, 8, torch.float32)
    assert blockwise_attention(query, key, value).permute(2, 0, 1, 3).is_contiguous()


@pytest.mark.parametrize(("window", "limit"), [(None, 0.04), (100, 0.008)])
def test_memory_is_that_of_blocks(window: int | None, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor made on the way, forward or backward, is nearly as large as all scores in fp32."""
    largest = 0

    class Measure(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    monkeypatch.setattr(blockwise, "SCORES_PER_THREAD", 1)
    length = 2048
    tensors = heads(1, 4, 4, length, 4, torch.bfloat16)
    with Measure():
        results(lambda *inputs: blockwise_attention(*inputs, window=window), tensors)
    assert largest <= limit * 4 * length * length * 4
