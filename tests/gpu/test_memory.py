"""Planned memory against what training takes on a GPU."""

from __future__ import annotations

import pytest
import torch

from tools.benchmark.memory import CASES, arguments, plan, run_apart

pytestmark = pytest.mark.gpu

TOLERANCE = 0.07


@pytest.mark.parametrize("name", CASES)
def test_training_takes_the_memory_that_is_planned(name: str, device: torch.device) -> None:
    needed = 1.2 * plan(*arguments(name, "cuda"), "cuda").total
    free, _ = torch.cuda.mem_get_info(device)
    if needed > free:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of GPU memory, and {free / 2**30:.0f} are free")
    assert abs(run_apart(name, "cuda")["deviation"]) < TOLERANCE
