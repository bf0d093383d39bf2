"""Tries the collective operations of training between all ranks of a job: that their results are right, and how fast they are.

Rank 0 leaves what was measured in the file that NEOX_REPORT_FILE names, for the doctor that had the job started.
"""

from __future__ import annotations

import os
import socket
import threading
from datetime import timedelta
from pathlib import Path

from megatron.launcher.worker import run_worker

MEETING_SECONDS = 60
LONGEST_SECONDS = 150
"""Seconds after which a rank that hangs in an operation ends itself: networks that lose packets let collectives wait for ever."""


def main() -> None:
    """The test. Raises LaunchError when the ranks do not meet."""
    import torch
    import torch.distributed as dist

    from megatron.doctor.children.measuring import measure
    from megatron.doctor.facts.bandwidth import Bandwidth
    from megatron.initialize import initialize, shutdown
    from megatron.mpu.topology import Topology

    watchdog = threading.Timer(LONGEST_SECONDS, _give_up)
    watchdog.daemon = True
    watchdog.start()
    world_size = int(os.environ["WORLD_SIZE"])
    topology = Topology(pipe=1, data=world_size, tensor=1)
    groups, device = initialize(topology=topology, timeout=timedelta(seconds=MEETING_SECONDS))
    collectives, pairs, wrong = measure(groups.world, device)
    told: list[tuple[str, str]] = [("", "")] * world_size
    dist.all_gather_object(told, (socket.gethostname(), wrong))
    if dist.get_rank() == 0:
        on_gpu = device.type == "cuda"
        bandwidth = Bandwidth(
            device=torch.cuda.get_device_name(device) if on_gpu else "CPU",
            backend="nccl" if on_gpu else "gloo",
            hosts=[host for host, _ in told],
            collectives=collectives,
            pairs=pairs,
            wrong={rank: problem for rank, (_, problem) in enumerate(told) if problem},
        )
        Path(os.environ["NEOX_REPORT_FILE"]).write_text(bandwidth.to_json())
    shutdown()


def _give_up() -> None:
    from megatron.errors import PassingError
    from megatron.launcher.failure import ERROR_FILE_VARIABLE, write_error_record

    error = PassingError(
        f"rank {os.environ['RANK']} on {socket.gethostname()} hung in a collective operation for {LONGEST_SECONDS} s"
    )
    if path := os.environ.get(ERROR_FILE_VARIABLE):
        write_error_record(path, error)
    os._exit(1)


if __name__ == "__main__":
    run_worker(main)
