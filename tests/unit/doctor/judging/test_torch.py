from __future__ import annotations

from dataclasses import replace

import pytest

from megatron.doctor.facts.gpus import Gpus
from megatron.doctor.facts.installed import Pin
from megatron.doctor.facts.torch_facts import TorchFacts
from megatron.doctor.findings import Finding, worst
from megatron.doctor.judging.torch import judge_torch
from tests.unit.doctor.builders import ON_GPUS, TORCH, gpu

PIN = Pin("2.13.0", "requirements-torch.txt")
NONE = Gpus()
TWO = Gpus((gpu(0), gpu(1)), "570.86")


def about(subject: str, torch: TorchFacts, gpus: Gpus = NONE, *, hidden: bool = False) -> Finding:
    (found,) = (finding for finding in judge_torch(torch, PIN, gpus, hidden=hidden) if finding.subject == subject)
    return found


def test_a_machine_without_gpus_computes_on_its_cpu() -> None:
    assert worst(judge_torch(TORCH, PIN, Gpus())) == "absent"
    assert "computes on the CPU" in about("GPUs", TORCH).text


def test_gpus_are_described_as_torch_sees_them() -> None:
    found = about("GPUs", ON_GPUS, TWO)
    assert found.text == "2 x NVIDIA H100, 80.0 GiB, compute capability 9.0; driver 570.86"
    assert about("collectives", ON_GPUS, TWO).text == "gloo between CPUs, NCCL 2.28.3 between GPUs"


@pytest.mark.parametrize(
    ("torch", "gpus", "subject", "text"),
    [
        (TorchFacts(problem="libcudart.so.13: no such file"), Gpus(), "torch", "cannot be imported: libcudart.so.13"),
        (TORCH, TWO, "GPUs", "this torch is built for CPUs: a run would compute on the CPU"),
        (replace(ON_GPUS, devices=()), TWO, "GPUs", "torch (built for CUDA 13.0) sees none; driver 570.86"),
        (ON_GPUS, Gpus(problem="nvidia-smi did not answer"), "GPUs", "nvidia-smi did not answer"),
        (replace(ON_GPUS, nccl=""), TWO, "collectives", "no NCCL"),
        (replace(TORCH, gloo=False), Gpus(), "collectives", "no gloo"),
    ],
)
def test_what_ends_a_run_is_a_failure_with_a_fix(torch: TorchFacts, gpus: Gpus, subject: str, text: str) -> None:
    found = about(subject, torch, gpus)
    assert found.level == "failure"
    assert text in found.text
    assert found.fix


def test_a_device_that_torch_does_not_see_is_a_warning_unless_it_is_hidden() -> None:
    one = replace(ON_GPUS, devices=ON_GPUS.devices[:1])
    assert about("GPUs", one, TWO).level == "warning"
    assert about("GPUs", one, TWO, hidden=True).level == "ok"
    assert about("GPUs", TORCH, TWO, hidden=True).text == "2 here, hidden by the environment: a run computes on the CPU"
