"""What is known of the device, and the world that a single process joins on it."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from megatron.initialize import World
from megatron.monitor.devices import device_name, peak_memory_bytes
from megatron.training.speed import peak_flops_per_second

pytestmark = pytest.mark.gpu

PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA GH200 480GB": 989e12,
}


def test_the_peak_of_a_known_gpu_is_that_of_its_data_sheet(device: torch.device) -> None:
    name = device_name(device)
    if name not in PEAKS:
        pytest.skip(f'no peak of "{name}" is known here')
    assert peak_flops_per_second(device, None) == PEAKS[name]


@pytest.mark.parametrize("name", PEAKS)
def test_the_products_are_told_apart_by_their_names(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert peak_flops_per_second(torch.device("cuda", 0), None) == PEAKS[name]


def test_a_configured_peak_comes_first(device: torch.device) -> None:
    assert peak_flops_per_second(device, 100.0) == 100e12


def test_the_peak_of_memory_counts_what_was_given_back(device: torch.device) -> None:
    size = 64 * 2**20
    before = torch.cuda.memory_allocated(device)
    torch.empty(size, dtype=torch.uint8, device=device)
    assert peak_memory_bytes(device) >= before + size


def test_one_process_joins_a_world_that_speaks_for_both_devices(world: World) -> None:
    assert world.groups.world.size == dist.get_world_size() == 1
    for device in (world.device, torch.device("cpu")):
        value = torch.full((3,), 2.0, device=device)
        dist.all_reduce(value)
        assert value.tolist() == [2.0, 2.0, 2.0]
    message = ["a decision"]
    dist.broadcast_object_list(message, src=0)
    assert message == ["a decision"]
