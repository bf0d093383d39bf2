"""What one rank alone knows stops all ranks before the same step, for the same reason."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch.distributed as dist

from megatron.mpu import collectives
from megatron.mpu.groups import build_process_groups
from megatron.mpu.topology import Topology
from megatron.training.exit_policy import ExitPolicy
from megatron.training.state import TrainState
from tests.worlds import run_world


def stop_each_way(rank: int) -> list[Any]:
    """(iteration, reason) of a run stopped by a signal to rank 1, by the clock of rank 0, and by a save that failed on rank 1."""
    world = build_process_groups(Topology(data=dist.get_world_size())).world
    state, ends = TrainState(), []

    def run(**changes: Any) -> None:
        nonlocal state
        policy = ExitPolicy(train_iters=10, world=world, **changes)
        policy.listen()
        state = TrainState()
        while not policy.reached(state):
            state = state.advance(samples=1, tokens=1, skipped=False)
            if signalled and rank == 1 and state.iteration == 4:
                os.kill(os.getpid(), signal.SIGUSR1)
        ends.append((state.iteration, policy.reason, policy.exit_status(saves=True)))

    signalled = True
    run()
    signalled = False
    run(exit_minutes=1, minutes=lambda: state.iteration / 5 if rank == 0 else 100.0)
    run(save_failed=lambda: rank == 1 and state.iteration == 6)
    ends.append(collectives_of_a_step(world))
    return ends


def collectives_of_a_step(world: Any) -> int:
    """How many collectives a step's question takes."""
    calls = []
    all_reduce = dist.all_reduce
    collectives.dist.all_reduce = lambda *words, **options: (calls.append(1), all_reduce(*words, **options))[1]
    ExitPolicy(train_iters=10, world=world, exit_minutes=5, exit_interval=3).reached(TrainState())
    collectives.dist.all_reduce = all_reduce
    return len(calls)


def test_what_one_rank_knows_stops_every_rank_before_the_same_step() -> None:
    ends = run_world(2, stop_each_way)
    assert ends[0] == ends[1]
    assert ends[0] == [
        (4, "stopped by SIGUSR1", 75),
        (5, "exit_duration_minutes 1 are over", 75),
        (6, "a checkpoint could not be saved", 0),
        1,
    ]
