"""Where and how the processes are started."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from megatron.components import LAUNCHERS
from megatron.neox_arguments.keys.types import DERIVED, ComponentName, Group, Integer, Number, Section, Texts, Words


class RunnerArgs(Group):
    """Hosts, devices, the launcher and what it passes to every process."""

    hostfile: str | None = None
    """File with one `HOST slots=N` line a machine (DeepSpeed's format). Default: the file that DLTS_HOSTFILE in the environment
    names, else the machines that Slurm or LSF has given, else this machine only."""

    include: str | None = None
    """Hosts and devices of the hostfile or the allocation to use, e.g. `worker-1@worker-2:0,2` (all of worker-1, devices 0 and 2 of worker-2)."""

    exclude: str | None = None
    """Hosts and devices of the hostfile or the allocation to leave out, in the notation of `include`. Only one of the two may be given."""

    num_nodes: Integer = Field(-1, ge=-1)
    """Use only the first N hosts of the hostfile or the allocation; -1 uses all. The others are spares (max_restarts)."""

    num_gpus: Integer | None = Field(None, ge=1, le=4096)
    """Processes per machine. Default: the slots of the hostfile; without one, one per device found, in an allocation per GPU or else per task
    that was asked for; on a machine without a GPU, 1 CPU process."""

    master_port: Integer = Field(29500, ge=1, le=65535)
    """TCP port of the first machine where the processes meet. When it is taken, a free one is chosen, unless the config names this one for several
    machines."""

    master_addr: str | None = None
    """Address of the first machine for the others. Default: the one from which it reaches deepy.py."""

    launcher: Annotated[str, ComponentName(LAUNCHERS)] = Field(DERIVED)
    """What starts the processes: local, on this machine; pdsh (ssh), openmpi, mpich, impi or mvapich, on the hosts of the hostfile; slurm
    or jsrun, inside an allocation of Slurm or LSF; torchrun: deepy.py is started on every machine by something else, and NNODES, NODE_RANK, MASTER_ADDR and
    MASTER_PORT say which it is. Existing GPT-NeoX always takes pdsh by default, which fails on a laptop without ssh.
    Default: pdsh when the hostfile names more than one host; without a hostfile slurm inside a Slurm allocation of several machines, or of
    one that is not this machine; else local."""

    launcher_args: Words | Section = ()
    """Further arguments for the launcher's program, e.g. `--mca btl_tcp_if_include eth0` of mpirun: one text as a shell reads it, or a list
    of words; or such for several launchers, by name (`{slurm: --qos=high}`), of which the one in use takes its own."""

    forward_environment: Texts = ()
    """Names of environment variables that all processes get from deepy.py, also on other machines, besides those that are always forwarded (NCCL_*,
    OMP_*, HF_*, ...: megatron/launcher/forwarding.py); with * and ? for any characters. A file `.deepspeed_env` of NAME=VALUE lines, here
    or in the home directory, sets more."""

    force_multi: bool = False
    """Go through the multi-machine launcher even when only one host is used."""

    autotuning_run: str | None = None
    """Mode of DeepSpeed's autotuner, `run` or `tune`."""

    no_ssh_check: bool = False
    """Skip the test connection (ssh) to every host before starting. Some MPIs then wait for a host that is down until the job is given up after 10
    minutes."""

    comment: str | None = None
    """Text attached to the Slurm job (`srun --comment`), used on clusters that account by it."""

    account: str | None = None
    """Slurm account to charge (`srun --account`)."""

    deepspeed_mpi: bool = False
    """Older spelling of `launcher: openmpi`."""

    deepspeed_slurm: bool = False
    """Older spelling of `launcher: slurm`."""

    max_restarts: Integer = Field(0, ge=0)
    """How often in a job the processes are started again after a crash: one of them was killed, ended with a traceback, or hung
    (step_timeout), or a machine was lost (node_timeout). They go on from the last checkpoint that the job has saved, whatever load, finetune,
    iteration and no_load_optim say; before the first, they begin as configured. In place of a lost machine comes the next one of the hostfile
    beyond num_nodes that has as many slots; with none left, see elastic. Mistakes that would come again (in the config, data or
    checkpoints, a diverged loss, no memory) are not tried again. Needs `save`."""

    elastic: bool = False
    """When a machine is lost and none is left to replace it, go on with fewer data-parallel ranks instead of trying the same machines again.
    The global batch stays that of the first attempt, by more gradient accumulation (gradient_accumulation_steps is overridden); so do data
    order, dropout and learning rates: only the order of sums, and with it their rounding, changes. The micro-batch never grows, but each rank
    holds a larger share of what ZeRO divides. The tensor, pipeline and context sizes stay: at least one copy of the model must fit
    into what is left. Needs max_restarts."""

    node_timeout: Number = Field(20.0, ge=3)
    """Seconds without a word from a machine after which it counts as lost and the attempt ends on all others. Machines report every second;
    3 at least, as a busy one may be late."""

    distributed_backend: Literal["nccl", "gloo", "mpi", "ucc"] = "nccl"
    """Library of collective operations. On a machine without a GPU the worker uses gloo whatever is written here, so that one config
    runs on both."""

    global_num_gpus: Integer = Field(DERIVED, ge=1)
    """Number of processes on all machines together. When it is written, it must agree with hostfile, include, exclude, num_nodes and
    num_gpus. Default: counted from hosts and devices."""

    user_script: str | None = None
    """The script being run (train.py, generate.py, ...); keys that only training needs are asked for only there. Set while running."""

    local_rank: Integer | None = None
    """Number of the process on its machine. Set while running; the environment variable LOCAL_RANK is what counts."""

    rank: Integer | None = None
    """Number of the process among all. Set while running; the environment variable RANK is what counts."""

    lazy_mpu_init: bool = False
    """Delay the creation of process groups (for launchers of others that call into this code)."""

    strict_merge: bool = False
    """Refuse a key that occurs in two config files. By default the later file wins and the override is reported; existing GPT-NeoX
    always refuses, which makes e.g. 20B.yml + local_setup.yml impossible."""

    config_files: Section | None = None
    """Names and contents of the merged files, for saved configs; not read again. Set while running."""

    deepscale: bool = False
    """Name of DeepSpeed before its release; has no meaning any more."""

    deepscale_config: str | None = None
    """Name of DeepSpeed's config file before its release; has no meaning any more."""

    adlr_autoresume: bool = False
    """Ask NVIDIA's ADLR cluster whether to stop and requeue the job."""

    adlr_autoresume_object: Any = None
    """Handle of the ADLR cluster library. Set while running."""

    adlr_autoresume_interval: Integer = Field(1000, ge=1)
    """Iterations between two questions to the ADLR cluster."""
