"""Whether a machine and the limits of its processes let runs be."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from megatron import text
from megatron.doctor.facts.disks import Disk
from megatron.doctor.facts.machine import UNLIMITED, Machine
from megatron.doctor.findings import Finding

FEWEST_OPEN_FILES = 1024
LEAST_SHARED_MEMORY = text.GIB
"""What NVIDIA's containers ask for (--shm-size=1g): loader processes and NCCL hand over data there. Docker gives 64 MiB."""


def judge_machine(machine: Machine) -> list[Finding]:
    """Python, cores, memory and limits."""
    return [
        Finding("Python", "ok", f"{machine.python}, {machine.executable}"),
        Finding("system", "ok", machine.system),
        Finding("project", "ok", f"{_commit(machine)}modules {machine.source}"),
        _cores(machine),
        Finding(
            "memory", "ok", f"{text.memory(machine.memory_bytes)}, {text.memory(machine.available_bytes)} available"
        )
        if machine.memory_bytes
        else Finding("memory", "absent", "the system does not tell"),
        _shared_memory(machine.limits.shared_memory),
        _open_files(*machine.limits.open_files),
        _locked_memory(machine),
    ]


def judge_folders(folders: Mapping[str, str], disks: Mapping[str, Disk]) -> list[Finding]:
    """Folders for temporary and kept files of libraries, by what they are for."""
    bad = [
        Finding(purpose, "warning", f"{path}: {disks[path].problem}", f"give another with {_variable(purpose)}")
        for purpose, path in folders.items()
        if disks[path].problem
    ]
    if bad:
        return bad
    spaces = ", ".join(
        f"{path} ({text.memory(disks[path].free_bytes)} free)" for path in dict.fromkeys(folders.values())
    )
    return [Finding("folders", "ok", f"can be written: {spaces}")]


def judge_compilers(machine: Machine, *, needed: Sequence[tuple[str, str]]) -> list[Finding]:
    """Compilers, where something needs them. needed: (program, what for)."""
    findings = [
        Finding("compiler", "ok", f"{name} at {machine.programs[name]}, for {purpose}")
        if name in machine.programs
        else Finding("compiler", "warning", f"{name} is not installed, for {purpose}", f"install {name}")
        for name, purpose in needed
    ]
    return findings or [Finding("compiler", "absent", "nothing here needs one")]


def _commit(machine: Machine) -> str:
    if not machine.commit:
        return ""
    changed = " with changes" if machine.commit.endswith("+") else ""
    return f"commit {machine.commit.rstrip('+')}{changed}, "


def _cores(machine: Machine) -> Finding:
    if machine.cores == machine.cores_present:
        return Finding("cores", "ok", f"{machine.cores}")
    return Finding("cores", "ok", f"{machine.cores} of {machine.cores_present}, by affinity or the container's quota")


def _shared_memory(size: int | None) -> Finding:
    if size is None:
        missing = sys.platform.startswith("linux")
        return Finding(
            "/dev/shm",
            "warning" if missing else "absent",
            "not there: loader processes cannot hand over batches" if missing else "not on this system",
            "mount a tmpfs on /dev/shm" if missing else "",
        )
    if size < LEAST_SHARED_MEMORY:
        what = f"{text.memory(size)}: loader processes (num_workers) and NCCL may run out of it"
        return Finding("/dev/shm", "warning", what, "start the container with --shm-size=1g or --ipc=host")
    return Finding("/dev/shm", "ok", text.memory(size))


def _open_files(soft: int, hard: int) -> Finding:
    if soft != UNLIMITED and soft < FEWEST_OPEN_FILES:
        fix = f"ulimit -n {FEWEST_OPEN_FILES if hard == UNLIMITED else min(hard, 65536)}"
        return Finding("open files", "warning", f"at most {soft}: many data files and loader processes need more", fix)
    return Finding("open files", "ok", "no limit" if soft == UNLIMITED else f"at most {soft:,}")


def _locked_memory(machine: Machine) -> Finding:
    limit = machine.limits.locked_memory
    if limit == UNLIMITED:
        return Finding("locked memory", "ok", "no limit")
    if machine.rdma:
        what = f"at most {text.memory(limit)}, but {', '.join(machine.rdma)} need locked memory: NCCL would fail or use TCP"
        return Finding("locked memory", "warning", what, "ulimit -l unlimited; in a container --ulimit memlock=-1")
    return Finding(
        "locked memory",
        "ok",
        f"at most {text.memory(limit)}, which matters with InfiniBand or RoCE alone: there is none",
    )


def _variable(purpose: str) -> str:
    return {
        "temporary files": "TMPDIR",
        "compiled extensions": "TORCH_EXTENSIONS_DIR",
        "compiled graphs": "TORCHINDUCTOR_CACHE_DIR",
        "compiled kernels": "TRITON_CACHE_DIR",
    }.get(purpose, "HF_HOME")
