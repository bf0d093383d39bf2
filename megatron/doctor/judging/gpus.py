"""Whether accelerators are well: errors of their memory, heat, clocks that are held down, somebody else on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from megatron import text
from megatron.doctor.facts.gpus import Gpu
from megatron.doctor.findings import Finding

HOT = 90.0
"""Degrees at which a device counts as hot when it does not tell at which it slows down."""

BUSY_SHARE = 0.02
"""Share of the memory in use above which somebody must be using a device: drivers themselves take a few hundred MiB."""

REASONS = {
    "hw_slowdown": "the hardware slows it down",
    "hw_thermal_slowdown": "it is too hot",
    "sw_thermal_slowdown": "it is too hot",
    "hw_power_brake_slowdown": "the power supply holds it down",
    "sw_power_cap": "its power limit is reached",
}
COOLING = "look at fans, airflow and room temperature"


def judge_gpus(devices: Sequence[Gpu]) -> list[Finding]:
    """One finding for each thing that is wrong with a device; none when all are well."""
    return [finding for device in devices for finding in _judge(device)]


def _judge(gpu: Gpu) -> Iterator[Finding]:
    name = f"GPU {gpu.index}"
    if gpu.repair_failed:
        yield Finding(
            name,
            "failure",
            "its memory has more errors than it can repair",
            "leave it out (exclude), and have it replaced",
        )
    if gpu.uncorrected:
        many = f"{gpu.uncorrected} uncorrected memory error{'s' if gpu.uncorrected > 1 else ''} since the driver was loaded"
        yield Finding(
            name,
            "failure",
            f"{many}: results computed on it may be wrong",
            "reset it (nvidia-smi -r), and leave it out if they come again",
        )
    if gpu.repair_pending:
        yield Finding(
            name, "warning", "a repair of its memory waits for a reset", "reset it (nvidia-smi -r) before the run"
        )
    if gpu.temperature is not None and gpu.temperature >= (gpu.hot or HOT):
        yield Finding(name, "warning", f"{gpu.temperature:.0f} degrees, at which it slows down", COOLING)
    reasons = list(dict.fromkeys(REASONS.get(reason, reason) for reason in gpu.throttled if reason != "sw_power_cap"))
    if reasons:
        fix = COOLING if "too hot" in " ".join(reasons) else "look at the power supply and its cables"
        yield Finding(name, "warning", f"its clocks are held down: {', '.join(reasons)}", fix)
    if gpu.memory_bytes and gpu.used_bytes > BUSY_SHARE * gpu.memory_bytes:
        who = f" by {', '.join(gpu.others)}" if gpu.others else ""
        used = f"{text.memory(gpu.used_bytes)} of {text.memory(gpu.memory_bytes)} are in use{who}"
        yield Finding(name, "warning", used, "end those processes, or leave the device out (exclude)")
