"""Planned memory against what training takes on a GPU."""

from __future__ import annotations

import pytest
import torch

from megatron.initialize import World
from tools.benchmark.memory import CASES, arguments, measure, plan

pytestmark = pytest.mark.gpu

TOLERANCE = 0.07


@pytest.mark.parametrize("name", [name for name in CASES if "1.4B" not in name])
def test_a_step_takes_the_memory_that_is_planned(name: str, world: World) -> None:
    args, vocabulary = arguments(name, "cuda")
    planned = plan(args, vocabulary, "cuda")
    free, _ = torch.cuda.mem_get_info(world.device)
    if planned.total * 1.2 > free:
        pytest.skip(f"needs {planned.total * 1.2 / 2**30:.0f} GiB of GPU memory, and {free / 2**30:.0f} are free")
    assert planned.total == pytest.approx(measure(args, vocabulary, world), rel=TOLERANCE)
