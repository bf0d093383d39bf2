"""What matrix products take here: the ceiling, and the floor of a step, which is the time of the model's own products at their own shapes.

Counted as `megatron.planning.model.flops` counts: each linear layer is a product forward and two backward, attention two forward and four
backward over the whole sequence. Shapes: `m x k` times `k x n`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from megatron.conversion.mapping.architecture import Architecture
from tools.benchmark.train_cases import Case
from tools.benchmark.train_job import Job, wait_for

DTYPE = torch.bfloat16
SQUARES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
REPEATS = {"cpu": 1, "cuda": 10}


@dataclass(frozen=True)
class Product:
    """`count` products of m x k by k x n; transposed: which operands lie the other way in memory."""

    m: int
    k: int
    n: int
    count: int = 1
    transposed: tuple[bool, bool] = (False, False)

    @property
    def flops(self) -> int:
        """Of all of them."""
        return 2 * self.m * self.k * self.n * self.count


def build(job: Job) -> Callable[[int], dict[str, float]]:
    """Its turns, which measure all products once, however many steps the others take."""
    return lambda _: measure(job.case, device=job.device)


def products_of(case: Case) -> Counter[Product]:
    """The products of a step, and how often each is there."""
    size, tokens, length = case.architecture, case.tokens, case.length
    found: Counter[Product] = Counter()
    for inputs, outputs, count in _linears(size):
        found[Product(tokens, inputs, outputs, transposed=(False, True))] += count  # x Wᵀ
        found[Product(tokens, outputs, inputs)] += count  # of the input: g W
        found[Product(outputs, tokens, inputs, transposed=(True, False))] += count  # of the weight: gᵀ x
    heads, layers, width = case.rows * size.num_attention_heads, size.num_layers, size.head_dim
    found[Product(length, width, length, heads, (False, True))] += 2 * layers  # q kᵀ, and g vᵀ backward
    found[Product(length, length, width, heads)] += 2 * layers  # p v, and of q
    found[Product(length, length, width, heads, (True, False))] += 2 * layers  # of v and of k
    return found


def _linears(size: Architecture) -> Iterator[tuple[int, int, int]]:
    """Inputs, outputs and number of the linear layers."""
    queries = size.num_attention_heads * size.head_dim
    keys = size.num_kv_heads * size.head_dim
    yield size.hidden_size, queries + 2 * keys, size.num_layers
    yield queries, size.hidden_size, size.num_layers
    yield size.hidden_size, size.mlp_width * (2 if size.gated else 1), size.num_layers
    yield size.mlp_width, size.hidden_size, size.num_layers
    yield size.hidden_size, size.vocab_size, 1


def seconds_of(product: Product, *, device: str) -> float:
    """The best of a few tries."""
    operands = [
        _matrix(product.m, product.k, product.count, transposed=product.transposed[0], device=device),
        _matrix(product.k, product.n, product.count, transposed=product.transposed[1], device=device),
    ]
    result = torch.matmul(*operands)  # warm, and where the others are written
    return min(_timed(lambda: torch.matmul(*operands, out=result), device) for _ in range(2))


def _matrix(rows: int, columns: int, count: int, *, transposed: bool, device: str) -> Tensor:
    shape = (columns, rows) if transposed else (rows, columns)
    values = torch.randn(shape if count == 1 else (count, *shape), dtype=DTYPE, device=device)
    return values.mT if transposed else values


def _timed(action: Callable[[], Any], device: str) -> float:
    repeats = REPEATS[device]
    wait_for(device)
    began = time.perf_counter()
    for _ in range(repeats):
        action()
    wait_for(device)
    return (time.perf_counter() - began) / repeats


def measure(case: Case, *, device: str) -> dict[str, float]:
    """ceiling: FLOP/s of the best product; floor_seconds: of all of the model's."""
    own = products_of(case)
    squares = [Product(side, side, side) for side in SQUARES[device]]
    seconds = {product: seconds_of(product, device=device) for product in [*own, *squares]}
    return {
        "ceiling": max(product.flops / taken for product, taken in seconds.items()),
        "floor_seconds": sum(count * seconds[product] for product, count in own.items()),
    }
