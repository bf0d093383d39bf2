"""What torch can do on this machine."""

from __future__ import annotations

from collections import Counter

from megatron import text
from megatron.doctor.facts.gpus import Gpus
from megatron.doctor.facts.installed import Pin
from megatron.doctor.facts.torch_facts import TorchFacts
from megatron.doctor.findings import Finding
from megatron.doctor.judging.packages import install, version_finding


def judge_torch(torch: TorchFacts, pin: Pin | None, gpus: Gpus, *, hidden: bool = False) -> list[Finding]:
    """torch, the GPUs it sees, and its collectives. gpus: what the driver sees; hidden: whether the environment hides them on purpose."""
    file = pin.file if pin else "requirements-torch.txt"
    if torch.problem:
        return [Finding("torch", "failure", f"cannot be imported: {torch.problem}", install(file))]
    build = (
        f"built for CUDA {torch.cuda}"
        if torch.cuda
        else f"built for ROCm {torch.rocm}"
        if torch.rocm
        else "built for CPUs"
    )
    findings = [version_finding("torch", torch.version, pin, more=build)]
    findings.append(_seen(torch, gpus, build, hidden=hidden))
    nccl = f", NCCL {torch.nccl} between GPUs" if torch.nccl else ""
    if torch.devices and not torch.nccl:
        findings.append(
            Finding(
                "collectives", "failure", "this torch has no NCCL, with which GPUs exchange gradients", install(file)
            )
        )
    elif not torch.gloo:
        findings.append(
            Finding(
                "collectives",
                "failure",
                "this torch has no gloo, with which processes exchange host values",
                install(file),
            )
        )
    else:
        findings.append(Finding("collectives", "ok", f"gloo between CPUs{nccl}"))
    return findings


def _seen(torch: TorchFacts, gpus: Gpus, build: str, *, hidden: bool) -> Finding:
    if gpus.problem:
        return Finding("GPUs", "failure", gpus.problem, "look at the driver (dmesg), or restart the machine")
    if torch.devices:
        kinds = Counter(
            f"{device.name}, {text.memory(device.memory_bytes)}, compute capability {device.capability[0]}.{device.capability[1]}"
            for device in torch.devices
        )
        driver = f"; driver {gpus.driver}" if gpus.driver else ""
        named = " and ".join(f"{count} x {kind}" for kind, count in kinds.items())
        if len(torch.devices) < len(gpus.devices) and not hidden:
            return Finding(
                "GPUs",
                "warning",
                f"torch sees {len(torch.devices)} of {len(gpus.devices)}: {named}{driver}",
                "look at the driver (nvidia-smi, dmesg)",
            )
        return Finding("GPUs", "ok", named + driver)
    if gpus.devices and not hidden:
        kind = f"{len(gpus.devices)} x {gpus.devices[0].name}"
        if not (torch.cuda or torch.rocm):
            fix = "install a torch built for them (https://pytorch.org/get-started/locally)"
            return Finding(
                "GPUs", "failure", f"{kind} here, but this torch is {build}: a run would compute on the CPU", fix
            )
        fix = "install a driver at least as new as the one that build asks for, or a torch built for an older CUDA"
        return Finding(
            "GPUs", "failure", f"{kind} here, but torch ({build}) sees none; driver {gpus.driver or 'unknown'}", fix
        )
    if gpus.devices:
        return Finding("GPUs", "ok", f"{len(gpus.devices)} here, hidden by the environment: a run computes on the CPU")
    return Finding("GPUs", "absent", "none here: a run computes on the CPU, its processes talk by gloo")
