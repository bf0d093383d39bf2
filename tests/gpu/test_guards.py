"""Guards on a GPU: the hash of the bits is that of the CPU, and stages are timed by events."""

from __future__ import annotations

import pytest
import torch

from megatron.engine.stage_clock import StageClock
from megatron.training.guards.bit_hash import WORDS, bit_hash

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_hash_is_that_of_the_cpu(dtype: torch.dtype) -> None:
    tensor = torch.randn(WORDS + 12345, generator=torch.Generator().manual_seed(0)).to(dtype)
    tensor[17], tensor[18] = float("nan"), -0.0
    assert bit_hash(tensor.cuda()).item() == bit_hash(tensor).item()


def test_a_stage_is_timed_by_what_the_device_computed() -> None:
    x = torch.randn(4096, 4096, device="cuda")
    clock = StageClock(torch.device("cuda"))
    multiply = clock.timed(lambda: [x @ x for _ in range(20)] and None)
    multiply()
    torch.cuda.synchronize()
    clock.start()
    multiply()
    multiply()
    time = clock.read()
    # 40 products of 2 * 4096^3 operations take longer than a launch, and less than a minute.
    assert 1e-3 < time.busy <= time.span < 60
