"""What is decided before the processes join: threads, backend, and the mistakes that are told at once."""

from __future__ import annotations

import pytest
import torch

from megatron import initialize as module
from megatron.errors import LaunchError
from megatron.initialize import choose_backend, choose_device, cpu_threads, initialize
from megatron.mpu.topology import Topology


@pytest.fixture
def gpus(monkeypatch):
    """A machine with two GPUs, as far as `choose_device` can tell; the numbers of those it made current."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return chosen


def test_cpus_use_gloo_and_gpus_both():
    assert choose_backend("nccl", torch.device("cpu")) == "gloo"
    assert choose_backend("nccl", torch.device("cuda", 0)) == "cpu:gloo,cuda:nccl"


def test_threads_are_those_asked_for_or_a_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads(2) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert cpu_threads(2) == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cpu_threads(2) == 4
    assert cpu_threads(100) == 1


def test_each_process_takes_the_gpu_of_its_local_rank(gpus):
    assert choose_device(1) == torch.device("cuda", 1)
    assert gpus == [1]


def test_more_processes_than_gpus_are_refused_with_the_fix(gpus):
    with pytest.raises(LaunchError, match="LOCAL_RANK 2 has no GPU, because this node shows 2: start at most 2"):
        choose_device(2)


def test_a_process_that_sees_only_its_own_gpu_takes_it(gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert choose_device(3) == torch.device("cuda", 0)


def test_a_gpu_without_bfloat16_is_told(gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(LaunchError, match='"bfloat16", which Old GPU cannot compute: choose "fp16" or "fp32"'):
        initialize(topology=Topology(), precision="bfloat16")


def test_a_layout_for_another_number_of_processes_is_refused(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LaunchError, match=r"1 process was started .* needs 4: pipeline 2 x data 1 x tensor 2"):
        initialize(topology=Topology(pipe=2, tensor=2))
