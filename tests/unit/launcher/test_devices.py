"""Counting accelerators without torch."""

from __future__ import annotations

import pytest

from megatron.errors import LaunchError
from megatron.launcher import devices
from megatron.launcher.devices import count_amd_devices, count_devices, count_nvidia_devices, restrict_devices


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program `nvidia-smi` that lists the given text first in PATH."""

    def install(listing: str, status: int = 0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}\nEND\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    return install


def test_devices_are_those_nvidia_smi_lists(nvidia_smi):
    nvidia_smi(
        "GPU 0: NVIDIA H100 (UUID: GPU-1)\n  MIG 1g.10gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA H100 (UUID: GPU-2)"
    )
    assert count_nvidia_devices() == 2


def test_the_kernel_driver_is_asked_when_nvidia_smi_fails(nvidia_smi, tmp_path):
    nvidia_smi("NVIDIA-SMI has failed", status=9)
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    assert count_nvidia_devices(tmp_path / "gpus") == 2
    assert count_nvidia_devices(tmp_path / "absent") == 0


def test_amd_devices_are_the_nodes_with_a_gpu_identifier(tmp_path):
    for number, identifier in enumerate(("0", "51966", "51967")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "gpu_id").write_text(f"{identifier}\n")
    assert count_amd_devices(tmp_path) == 2


@pytest.mark.parametrize(
    ("visible", "count"),
    [("0,1", 2), ("3", 1), ("", 0), ("-1", 0), ("0,-1,1", 1), ("0,9", 1), ("GPU-aa,GPU-bb,GPU-cc", 3), (" 0 , 2 ", 2)],
)
def test_cuda_visible_devices_cuts_the_count(monkeypatch, visible, count):
    monkeypatch.setattr(devices, "count_nvidia_devices", lambda: 4)
    assert count_devices({"CUDA_VISIBLE_DEVICES": visible}) == count
    assert count_devices({}) == 4


def test_hip_visible_devices_cuts_the_count_of_amd_devices(monkeypatch):
    monkeypatch.setattr(devices, "count_nvidia_devices", lambda: 0)
    monkeypatch.setattr(devices, "count_amd_devices", lambda: 8)
    assert count_devices({"HIP_VISIBLE_DEVICES": "2,3"}) == 2
    assert count_devices({"CUDA_VISIBLE_DEVICES": "1"}) == 1


def test_a_variable_does_not_make_devices_where_there_are_none(monkeypatch):
    monkeypatch.setattr(devices, "count_nvidia_devices", lambda: 0)
    monkeypatch.setattr(devices, "count_amd_devices", lambda: 0)
    assert count_devices({"CUDA_VISIBLE_DEVICES": "0,1"}) == 0


def test_chosen_slots_are_numbered_among_the_visible_devices():
    assert restrict_devices((1, 2), count=4, environment={}) == {"CUDA_VISIBLE_DEVICES": "1,2"}
    assert restrict_devices((0, 2), count=3, environment={"CUDA_VISIBLE_DEVICES": "4, 5, 6"}) == {
        "CUDA_VISIBLE_DEVICES": "4,6"
    }
    assert restrict_devices((0, 1), count=2, environment={}) == {}


@pytest.mark.parametrize(
    ("count", "environment"), [(0, {}), (0, {"CUDA_VISIBLE_DEVICES": ""}), (4, {"CUDA_VISIBLE_DEVICES": ""})]
)
def test_slots_of_the_cpu_are_no_devices(count, environment):
    assert restrict_devices((1, 2), count=count, environment=environment) == {}


@pytest.mark.parametrize(("count", "environment"), [(2, {}), (8, {"CUDA_VISIBLE_DEVICES": "3,4"})])
def test_a_slot_that_is_no_device_is_told(count, environment):
    with pytest.raises(LaunchError, match=r"shows 2 devices, and device 2 was asked for: correct its slots="):
        restrict_devices((1, 2), count=count, environment=environment)
