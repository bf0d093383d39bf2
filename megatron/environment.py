"""The process environment: which rank this process is, whoever started it, and the variables a rank must find before Python starts.

A rank may be started by our agent, `torchrun`, `srun` or an MPI launcher; each tells it its place in variables of its own.
`read_rank_environment` reads them all into one `RankEnvironment`, and `export` writes that back under the names torch reads
(RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from megatron.errors import LaunchError

DEFAULT_MASTER_PORT = 29500


@dataclass(frozen=True)
class RankEnvironment:
    """The place of one process in the job: its rank among all and on its machine, and where rank 0 listens."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    master_addr: str = "127.0.0.1"
    master_port: int = DEFAULT_MASTER_PORT

    def variables(self) -> dict[str, str]:
        """The same as environment variables, under torch's names."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
        }

    def export(self) -> None:
        """Set these variables in this process, for torch.distributed and DeepSpeed to find."""
        os.environ.update(self.variables())


@dataclass(frozen=True)
class _Family:
    """The variables of one kind of launcher; the first one set counts. `when`: a variable without which the family does not apply."""

    name: str
    rank: tuple[str, ...]
    world_size: tuple[str, ...]
    local_rank: tuple[str, ...]
    local_world_size: tuple[str, ...]
    when: str | None = None


# The innermost launcher comes first: `mpirun` inside a Slurm allocation leaves Slurm's variables of its own daemons visible, and
# torchrun may run inside either. Slurm's count only in a step (`srun`), since the shell of a batch script has SLURM_PROCID=0 too.
_FAMILIES = (
    _Family("torchrun", ("RANK",), ("WORLD_SIZE",), ("LOCAL_RANK",), ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")),
    _Family(
        "Open MPI",
        ("OMPI_COMM_WORLD_RANK",),
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
    ),
    _Family(
        "MVAPICH",
        ("MV2_COMM_WORLD_RANK",),
        ("MV2_COMM_WORLD_SIZE",),
        ("MV2_COMM_WORLD_LOCAL_RANK",),
        ("MV2_COMM_WORLD_LOCAL_SIZE",),
    ),
    _Family(
        "PMI (MPICH, Intel MPI)",
        ("PMI_RANK",),
        ("PMI_SIZE",),
        ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
    ),
    _Family(
        "Slurm",
        ("SLURM_PROCID",),
        ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"),
        ("SLURM_LOCALID",),
        (),
        when="SLURM_STEP_ID",
    ),
)


def read_rank_environment(environment: Mapping[str, str] | None = None) -> RankEnvironment:
    """The place of this process, from the variables of torchrun, Open MPI, MVAPICH, MPICH/Intel MPI (PMI) or Slurm.

    A process started by none of them is rank 0 of 1. Raises LaunchError when the variables are incomplete or contradict each other.
    """
    variables = os.environ if environment is None else environment
    family = next((family for family in _FAMILIES if _applies(family, variables)), None)
    if family is None:
        return RankEnvironment(
            master_addr=variables.get("MASTER_ADDR", "127.0.0.1"), master_port=_master_port(variables)
        )
    rank, world_size = _integer(family.rank, variables), _integer(family.world_size, variables)
    local_rank, local_world_size = _local_place(family, variables, rank, world_size)
    if not (0 <= rank < world_size and 0 <= local_rank < local_world_size <= world_size):
        raise LaunchError(
            f"the variables of {family.name} contradict each other: rank {rank} of {world_size}, local rank {local_rank} of "
            f"{local_world_size}; start the processes with one launcher, in a shell without leftovers of another"
        )
    return RankEnvironment(
        rank=rank,
        local_rank=local_rank,
        world_size=world_size,
        local_world_size=local_world_size,
        master_addr=_master_addr(variables, one_machine=local_world_size == world_size),
        master_port=_master_port(variables),
    )


STARTED_VARIABLE = "NEOX_STARTED"
"""When the job was started (seconds since the epoch), for processes of it that started later."""


JOB_VARIABLE = "NEOX_JOB"
"""The name of the job, the same in all its attempts and for all its ranks."""


COMMAND_VARIABLE = "NEOX_COMMAND"
"""The words of deepy.py that started the job, as a shell reads them."""


def note_start(environment: MutableMapping[str, str] | None = None, *, anew: bool = False) -> None:
    """Let this process and those it starts know since when the job runs: from now on, unless it is known already. anew: now it begins.

    A rank that torchrun has started again learns nothing from its predecessors: the job is as old as torchrun, our parent.
    """
    variables = os.environ if environment is None else environment
    if anew or STARTED_VARIABLE not in variables:
        again = not anew and restart_count(variables) > 0
        variables[STARTED_VARIABLE] = repr((process_start(os.getppid()) if again else None) or time.time())


def process_start(pid: int) -> float | None:
    """When a process of this machine was started, in seconds since the epoch; None where it is not known (there is none, or this is not Linux)."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])  # since the machine booted
    except OSError:
        return None
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def job_start(environment: Mapping[str, str] | None = None) -> float:
    """When the job was started, in seconds since the epoch; now, where nobody has noted it."""
    variables = os.environ if environment is None else environment
    return float(variables.get(STARTED_VARIABLE) or time.time())


def job_id(environment: Mapping[str, str] | None = None) -> str | None:
    """The name of the job, which no other job has; None where nobody has given it one."""
    variables = os.environ if environment is None else environment
    return variables.get(JOB_VARIABLE) or None


def restart_count(environment: Mapping[str, str] | None = None) -> int:
    """How often the ranks of the job have been started again after a crash, by our agent or by torchrun."""
    variables = os.environ if environment is None else environment
    return int(variables.get("TORCHELASTIC_RESTART_COUNT") or 0)


def available_cores() -> int:
    """CPU cores this process may use: its affinity, cut by the container's CPU quota where there is one (at least 1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def rank_defaults(
    *, local_world_size: int, accelerators: bool, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Variables every rank of a machine should start with and that `environment` does not set already.

    They are read before or while torch is imported, so they cannot be set later. local_world_size: ranks on this machine, which
    share its cores; accelerators: whether the ranks compute on GPUs.
    """
    variables = os.environ if environment is None else environment
    wanted = {
        "OMP_NUM_THREADS": str(max(1, available_cores() // local_world_size)),
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_EXTENSIONS_DIR": str(extensions_directory(variables)),
        "TORCHINDUCTOR_CACHE_DIR": str(graphs_directory(variables)),
        # The compilers that each rank starts share the cores as its threads do.
        "TORCHINDUCTOR_COMPILE_THREADS": str(max(1, available_cores() // local_world_size)),
        # Restarted gloo ranks must not meet the keys of their predecessors in a store that outlived them.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    if not accelerators:
        wanted |= {"DS_ACCELERATOR": "cpu", **CPU_ALLOCATOR}
    return {name: value for name, value in wanted.items() if name not in variables}


# torch gives every activation back to glibc, which unmaps large blocks at once, so that every step faults in fresh zeroed pages.
# Never mapping single blocks and never trimming keeps the pages. Measured on two cores, a small model with a [2048, 8192] head: 3.3
# times fewer page faults, 14 % less CPU time (1.2 times faster steps on an idle machine), 30 % more memory. Huge pages
# (glibc.malloc.hugetlb) and a larger MALLOC_TOP_PAD_ gained nothing on top.
CPU_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36)}


def extensions_directory(environment: Mapping[str, str]) -> Path:
    """Where torch keeps compiled extensions: one folder an installation.

    The shared default breaks when two installations of DeepSpeed build the same extension, and one build cut short blocks all others.
    """
    return _cache_of_installation(environment, "torch_extensions")


def graphs_directory(environment: Mapping[str, str]) -> Path:
    """Where torch keeps compiled graphs and their kernels, for the next start: one folder an installation.

    Its own default is in /tmp, which is emptied, and on some machines is another one for each job.
    """
    return _cache_of_installation(environment, "torch_graphs")


def _cache_of_installation(environment: Mapping[str, str], name: str) -> Path:
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    installation = hashlib.sha256(f"{sys.prefix} {sys.version}".encode()).hexdigest()[:12]
    return cache / "deepy-neox" / name / installation


def _applies(family: _Family, variables: Mapping[str, str]) -> bool:
    needed = (family.rank, family.world_size)
    return all(any(name in variables for name in names) for names in needed) and (
        family.when is None or family.when in variables
    )


def _integer(names: tuple[str, ...], variables: Mapping[str, str]) -> int:
    name = next(name for name in names if name in variables)
    try:
        return int(variables[name])
    except ValueError:
        raise LaunchError(
            f'the environment variable {name} is "{variables[name]}": it must be a whole number'
        ) from None


def _local_place(family: _Family, variables: Mapping[str, str], rank: int, world_size: int) -> tuple[int, int]:
    """(local rank, local world size); a launcher that tells neither is taken to have started everything on one machine."""
    if any(name in variables for name in family.local_world_size):
        local_world_size = _integer(family.local_world_size, variables)
    elif "SLURM_STEP_TASKS_PER_NODE" in variables and family.name != "torchrun":
        local_world_size = _slurm_tasks_here(variables)
    else:
        local_world_size = world_size
    if any(name in variables for name in family.local_rank):
        return _integer(family.local_rank, variables), local_world_size
    if local_world_size == world_size:
        return rank, local_world_size
    raise LaunchError(f"{family.name} did not tell this process its rank on the machine: set {family.local_rank[0]}")


def _slurm_tasks_here(variables: Mapping[str, str]) -> int:
    """Tasks on this node, from the counts of all and the number of the node."""
    counts = expand_slurm_counts(variables["SLURM_STEP_TASKS_PER_NODE"])
    node = int(variables.get("SLURM_NODEID", "0"))
    if node >= len(counts):
        raise LaunchError(
            f'SLURM_STEP_TASKS_PER_NODE is "{variables["SLURM_STEP_TASKS_PER_NODE"]}", which has no entry for node {node} (SLURM_NODEID)'
        )
    return counts[node]


def _master_addr(variables: Mapping[str, str], *, one_machine: bool) -> str:
    if "MASTER_ADDR" in variables:
        return variables["MASTER_ADDR"]
    if one_machine:
        return "127.0.0.1"
    nodes = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST")
    if nodes:
        return first_slurm_node(nodes)
    raise LaunchError(
        "the ranks are on several machines and MASTER_ADDR is not set: set it to the name or address of the machine of rank 0"
    )


def _master_port(variables: Mapping[str, str]) -> int:
    return _integer(("MASTER_PORT",), variables) if "MASTER_PORT" in variables else DEFAULT_MASTER_PORT


def expand_slurm_counts(text: str) -> list[int]:
    """Slurm's counts of each machine: `2(x3),1` -> 2 2 2 1; empty when it is written otherwise."""
    matches = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip()) for part in text.split(",")]
    if not all(matches):
        return []
    return [int(match[1]) for match in matches if match for _ in range(int(match[2] or 1))]


def first_slurm_node(nodes: str) -> str:
    """The first name of a Slurm node list: `gpu[03-07,12],login1` -> `gpu03`."""
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\])?([^,\[]*)", nodes)
    return "".join(part or "" for part in match.groups()) if match else nodes
