"""Processes that join: one without any launcher, two through their environment, and one that waits in vain."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from megatron.errors import LaunchError
from megatron.initialize import initialize, join_world, shutdown
from megatron.mpu.topology import Topology
from megatron.neox_arguments import NeoXArgs
from tests.worlds import run_world

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _forget_the_world() -> None:
    """Undo what the test harness set up, so that `initialize` finds a fresh process."""
    dist.destroy_process_group()
    for name in RANK_VARIABLES:
        os.environ.pop(name, None)


def _start_alone(rank: int) -> None:
    _forget_the_world()
    groups, device = initialize(topology=Topology())
    assert device == torch.device("cpu")
    assert (groups.rank, groups.world.size, groups.tensor.handle) == (0, 1, None)
    assert dist.get_world_size() == 1
    dist.all_reduce(torch.ones(1))
    assert os.environ["LOCAL_RANK"] == "0"
    shutdown()
    assert not dist.is_initialized()


def _start_launched(rank: int, size: int, port: int) -> None:
    _forget_the_world()
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    groups, _ = initialize(topology=Topology(tensor=size))
    total = torch.tensor([float(rank)])
    dist.all_reduce(total)
    assert total.item() == sum(range(size))
    assert groups.tensor.size == dist.get_world_size() == size
    again, _ = initialize(topology=Topology(data=size))  # an initialised torch.distributed is used as it is
    assert again.data.size == size
    shutdown()


def _start_configured(rank: int, args: NeoXArgs) -> tuple[int, int, int]:
    world = join_world(args)
    assert world.device == torch.device("cpu")
    assert world.groups.rank == rank
    return world.groups.pipe.size, world.groups.data.size, world.groups.tensor.size


def _wait_in_vain(rank: int, port: int) -> None:
    _forget_the_world()
    os.environ.update(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with pytest.raises(
        LaunchError, match=f"rank 0 did not meet all 2 processes at 127.0.0.1:{port} within 1 s: check that"
    ):
        initialize(topology=Topology(data=2), timeout=timedelta(seconds=1))


def test_one_process_needs_no_launcher_and_no_variables():
    run_world(1, _start_alone)


@pytest.mark.parametrize("size", [1, 2])
def test_launched_processes_find_each_other_through_their_environment(size):
    run_world(size, _start_launched, size, _free_port())


def test_the_layout_comes_from_the_configuration():
    smallest = {
        "num_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "seq_length": 32,
        "train_micro_batch_size_per_gpu": 2,
        "train_iters": 10,
    }
    args = NeoXArgs.from_dict({**smallest, "pipe_parallel_size": 2, "model_parallel_size": 2}, world_size=4)
    assert run_world(4, _start_configured, args) == [(2, 1, 2)] * 4


def test_a_process_that_waits_in_vain_says_where_and_how_long():
    run_world(1, _wait_in_vain, _free_port())
