"""From a started process to its place in the run: the device it computes on, torch.distributed, and its process groups.

A run of one process needs no launcher and no environment variable. Several processes find each other through the variables of
whatever started them (`megatron.environment`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from megatron import text
from megatron.environment import RankEnvironment, available_cores, read_rank_environment
from megatron.errors import LaunchError
from megatron.mpu.groups import ProcessGroups, build_process_groups
from megatron.mpu.topology import Topology

if TYPE_CHECKING:
    from megatron.neox_arguments import NeoXArgs

DEFAULT_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """This process's place in the run: the groups it belongs to and the device it computes on."""

    groups: ProcessGroups
    device: torch.device


def join_world(args: NeoXArgs) -> World:
    """`initialize` for the layout, backend and precision of a configuration (collective)."""
    topology = Topology(
        pipe=args.pipeline_stages,
        data=args.data_parallel_size,
        tensor=args.model_parallel_size,
        context=args.context_parallel_size,
    )
    return World(*initialize(topology=topology, backend=args.distributed_backend, precision=args.precision))


def initialize(
    *,
    topology: Topology,
    backend: str = "nccl",
    precision: str = "fp32",
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> tuple[ProcessGroups, torch.device]:
    """Choose this process's device, join the other processes, and build the groups of `topology` (collective).

    backend: "nccl" or "gloo" between GPUs; CPUs always use gloo. precision: of the run, checked against what the GPU can do.
    timeout: how long to wait for other processes, at the start and in every collective. An already initialised torch.distributed
    is used as it is.

    Raises LaunchError when the number of processes is not `topology.world_size`, when a process has no GPU of its own, when the GPU
    lacks the precision, or when the processes do not find each other.
    """
    place = read_rank_environment()
    _check_world_size(topology, place.world_size)
    device = choose_device(place.local_rank)
    _check_precision(precision, device)
    if device.type == "cpu":
        torch.set_num_threads(cpu_threads(place.local_world_size))
    place.export()  # DeepSpeed and loggers look for their rank there, also in a process that nobody launched
    if not dist.is_initialized():
        _join(choose_backend(backend, device), place, timeout)
    return build_process_groups(topology), device


def shutdown() -> None:
    """Leave torch.distributed, if this process is in it. Outstanding collectives must be over."""
    if dist.is_initialized():
        dist.destroy_process_group()


def choose_device(local_rank: int) -> torch.device:
    """The CPU where there is no GPU, else the GPU numbered `local_rank`, made the current one.

    Raises LaunchError when there are fewer GPUs than processes on the node.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    # A scheduler may show each process one GPU, its own, which then has number 0 for all of them.
    index = 0 if count == 1 and os.environ.get("CUDA_VISIBLE_DEVICES") else local_rank
    if index >= count:
        raise LaunchError(
            f"the process with LOCAL_RANK {local_rank} has no GPU, because this node shows {count}: start at most {count} processes on "
            'it, or set CUDA_VISIBLE_DEVICES="" to train on its CPU'
        )
    torch.cuda.set_device(index)
    torch.cuda.init()
    return torch.device("cuda", index)


def choose_backend(backend: str, device: torch.device) -> str:
    """What `init_process_group` is told: gloo for CPU tensors always, and `backend` for GPU tensors.

    Having both, small host values (names, decisions, headers of batches) travel without waiting for the GPU's queue.
    """
    return "gloo" if device.type == "cpu" else f"cpu:gloo,cuda:{backend}"


def cpu_threads(local_world_size: int) -> int:
    """Threads for this process's operators: OMP_NUM_THREADS, else its share of the cores among the machine's processes."""
    requested = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list has one number a nesting level
    if requested.isdigit() and int(requested) > 0:
        return int(requested)
    return max(1, available_cores() // local_world_size)


def _check_world_size(topology: Topology, world_size: int) -> None:
    if world_size != topology.world_size:
        context = ", context_parallel_size" if topology.context > 1 else ""
        raise LaunchError(
            f"{world_size} process{'es were' if world_size != 1 else ' was'} started (WORLD_SIZE), but the layout needs "
            f"{topology.world_size}: {_in_words(topology)}; start as many, or "
            f"change pipe_parallel_size{context} or model_parallel_size"
        )


def _in_words(topology: Topology) -> str:
    return text.grid(pipe=topology.pipe, data=topology.data, tensor=topology.tensor, context=topology.context)


def _check_precision(precision: str, device: torch.device) -> None:
    if (
        precision == "bfloat16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise LaunchError(
            f'"precision" is "bfloat16", which {torch.cuda.get_device_name(device)} cannot compute: choose "fp16" or "fp32"'
        )


def _join(backend: str, place: RankEnvironment, timeout: timedelta) -> None:
    if place.world_size == 1:
        # DeepSpeed wants an initialised torch.distributed even then; a store in this process needs no address and no port.
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
        return
    try:
        dist.init_process_group(backend, rank=place.rank, world_size=place.world_size, timeout=timeout)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise LaunchError(
            f"rank {place.rank} did not meet all {place.world_size} processes at {place.master_addr}:{place.master_port} within "
            f"{timeout.total_seconds():.0f} s: check that every process was started, that the address can be reached from every node "
            f"and that the port is free ({error})"
        ) from error
