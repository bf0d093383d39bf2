"""A machine: its cores, memory and limits, its devices, its packages and its copy of this project. Needs the standard library alone."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron.doctor.facts.gpus import Gpus, gather_gpus
from megatron.doctor.facts.installed import installed_versions, read_pins
from megatron.doctor.facts.source import git_commit, source_hash
from megatron.environment import available_cores, extensions_directory, graphs_directory

UNLIMITED = -1


@dataclass(frozen=True)
class Limits:
    """What a process may take. Bytes and files; `UNLIMITED` where there is no limit. open_files: the soft limit and the hard one."""

    open_files: tuple[int, int]
    locked_memory: int
    shared_memory: int | None
    """Size of /dev/shm, None where there is none."""


@dataclass(frozen=True)
class Machine:
    """memory_bytes: of the machine or, where that is less, of its container; available_bytes: what could be taken now; cores: that this
    process may use, of cores_present; rdma: adapters that reach the memory of other machines by themselves (InfiniBand, RoCE).
    """

    host: str
    python: str
    executable: str
    system: str
    cores: int
    cores_present: int
    memory_bytes: int
    available_bytes: int
    limits: Limits
    source: str
    commit: str
    rdma: tuple[str, ...] = ()
    gpus: Gpus = field(default_factory=Gpus)
    packages: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    """Folders for temporary and kept files of libraries, by what they are for."""
    programs: dict[str, str] = field(default_factory=dict)
    """Where compilers are, by name."""


def gather_machine(*, also: Sequence[str] = ()) -> Machine:
    """The machine this process runs on. also: packages to look for besides those of the requirements files."""
    memory, available = memory_sizes()
    return Machine(
        host=socket.gethostname(),
        python=platform.python_version(),
        executable=sys.executable,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=available_cores(),
        cores_present=os.cpu_count() or 1,
        memory_bytes=memory,
        available_bytes=available,
        limits=gather_limits(),
        source=source_hash(),
        commit=git_commit(),
        rdma=_names_in(Path("/sys/class/infiniband")),
        gpus=gather_gpus(),
        packages=installed_versions([*read_pins(), *also]),
        folders=cache_folders(),
        programs={name: path for name in ("nvcc", "cc", "g++") if (path := shutil.which(name))},
    )


def gather_limits(shared_memory: Path = Path("/dev/shm")) -> Limits:
    """The limits of this process."""
    return Limits(
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        locked_memory=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        if hasattr(resource, "RLIMIT_MEMLOCK")
        else UNLIMITED,
        shared_memory=shutil.disk_usage(shared_memory).total if shared_memory.is_dir() else None,
    )


def memory_sizes(information: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """(memory, available memory) in bytes, cut by the container's limit; (0, 0) where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in information.read_text().splitlines() if ":" in line)
        memory, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return 0, 0
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no container, or `max`
        return memory, available
    return min(memory, limit), min(available, max(limit - used, 0))


def cache_folders() -> dict[str, str]:
    """Where libraries keep files: what they compile, what they download, what is in passing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {
        "temporary files": tempfile.gettempdir() if _has_temporary_folder() else os.environ.get("TMPDIR", "/tmp"),
        "compiled extensions": os.environ.get("TORCH_EXTENSIONS_DIR") or str(extensions_directory(os.environ)),
        "compiled graphs": os.environ.get("TORCHINDUCTOR_CACHE_DIR") or str(graphs_directory(os.environ)),
        "compiled kernels": os.environ.get("TRITON_CACHE_DIR") or str(Path.home() / ".triton" / "cache"),
        "downloaded models": os.environ.get("HF_HOME") or str(cache / "huggingface"),
    }


def _has_temporary_folder() -> bool:
    try:
        tempfile.gettempdir()
    except OSError:
        return False
    return True


def _names_in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ()
