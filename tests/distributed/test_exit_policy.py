"""A signal to one rank stops all ranks before the same step."""

from __future__ import annotations

import os
import signal

import torch.distributed as dist

from megatron.mpu.groups import build_process_groups
from megatron.mpu.topology import Topology
from megatron.training.exit_policy import ExitPolicy
from megatron.training.state import TrainState
from tests.worlds import run_world


def stop_at(rank: int, signalled_rank: int, signalled_at: int) -> int:
    world = build_process_groups(Topology(data=dist.get_world_size())).world
    policy = ExitPolicy(train_iters=10, exit_interval=None, world=world)
    policy.listen()
    state = TrainState()
    while not policy.reached(state):
        state = state.advance(samples=1, tokens=1, skipped=False)
        if rank == signalled_rank and state.iteration == signalled_at:
            os.kill(os.getpid(), signal.SIGTERM)
    return state.iteration


def test_a_signal_to_one_rank_stops_every_rank_before_the_same_step() -> None:
    assert run_world(2, stop_at, 1, 4) == [4, 4]
