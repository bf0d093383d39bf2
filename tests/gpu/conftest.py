"""What the GPU tests share: the device, a world of one process on it, and the small text of the end-to-end tests.

Every test takes `device` and is skipped where there is none. Nothing here or in the tests needs CUDA to be imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest
import torch

from megatron.initialize import World, initialize, shutdown
from megatron.mpu.topology import Topology
from tests.end_to_end.conftest import small_data as small_data


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, computing fp32 products in fp32 (no TF32)."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none")
    torch.set_float32_matmul_precision("highest")
    torch.cuda.set_device(0)
    return torch.device("cuda", 0)


@pytest.fixture(scope="session")
def world(device: torch.device) -> Iterator[World]:
    """This process as a world of one, with the mixed backend of a real run; its variables are taken back at the end."""
    with mock.patch.dict(os.environ):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)
        yield World(*initialize(topology=Topology(), backend="nccl", precision="fp32"))
        shutdown()
