"""Facts to judge: a machine that is well, to be changed by a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from megatron.doctor.facts.disks import Disk
from megatron.doctor.facts.gpus import Gpu, Gpus
from megatron.doctor.facts.machine import UNLIMITED, Limits, Machine
from megatron.doctor.facts.node import NodeFacts, NodeReport
from megatron.doctor.facts.torch_facts import TorchDevice, TorchFacts

GIB = 2**30
LIMITS = Limits(open_files=(4096, 65536), locked_memory=8 * 2**20, shared_memory=8 * GIB)
MACHINE = Machine(
    host="box",
    python="3.12.3",
    executable="/usr/bin/python",
    system="Linux 6.1 x86_64",
    cores=8,
    cores_present=8,
    memory_bytes=64 * GIB,
    available_bytes=60 * GIB,
    limits=LIMITS,
    source="0123456789ab",
    commit="fedcba987654",
    packages={"torch": "2.13.0", "deepspeed": "0.19.8", "numpy": "2.4.6"},
)
TORCH = TorchFacts(version="2.13.0", gloo=True, imports={"deepspeed": ""})
H100 = TorchDevice("NVIDIA H100", 80 * GIB, (9, 0), True)
V100 = TorchDevice("Tesla V100", 32 * GIB, (7, 0), False)
ON_GPUS = replace(TORCH, cuda="13.0", nccl="2.28.3", devices=(H100, H100))


def gpu(index: int = 0, **changes: Any) -> Gpu:
    """A device that is well."""
    return replace(Gpu(index, "NVIDIA H100", 80 * GIB, 0, temperature=40, hot=90, uncorrected=0), **changes)


def with_gpus(count: int, *, name: str = "NVIDIA H100", machine: Machine = MACHINE) -> Machine:
    """The machine with devices."""
    return replace(machine, gpus=Gpus(tuple(gpu(index, name=name) for index in range(count)), "570.86"))


def without_limits(machine: Machine) -> Machine:
    """The machine without a limit of locked memory."""
    return replace(machine, limits=replace(machine.limits, locked_memory=UNLIMITED))


def node(name: str, *, slots: int = 2, machine: Machine = MACHINE, **facts: Any) -> NodeReport:
    """A machine of a job that is well."""
    well: dict[str, Any] = {
        "came_after": 1.2,
        "skew": 0.002,
        "round_trip": 0.001,
        "folders": {"save": Disk("/shared/run", True, 500 * GIB, 900 * GIB)},
        "shared": {"save": ""},
        "meeting_port": 29500,
    }
    return NodeReport(name, tuple(range(slots)), NodeFacts(replace(machine, host=name), **{**well, **facts}))
