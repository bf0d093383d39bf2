"""Distributed tests: fork a gloo world of a few ranks and collect what each returns.

torch is imported once in the parent and the ranks are forked, which starts a world in well under a second. A forked process must
not inherit a started thread pool, so the parent never runs an operator with more than one thread (`tests/conftest.py`).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from megatron.errors import NeoXError


def run_world(size: int, function: Callable[..., Any], *arguments: Any, timeout_seconds: float = 240) -> list[Any]:
    """Run `function(rank, *arguments)` on `size` forked ranks of one gloo world; return what they returned, in rank order.

    The function may build any process groups and serve many cases. A rank's exception fails the test with its traceback.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as directory:
        pipes, processes = [], []
        for rank in range(size):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_rank_main, args=(rank, size, directory, sender, function, arguments))
            process.start()
            sender.close()
            pipes.append(receiver)
            processes.append(process)
        results = [_receive(pipe, rank, timeout_seconds) for rank, pipe in enumerate(pipes)]
        for process in processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
    failures = [f"rank {rank}:\n{value}" for rank, (ok, value) in enumerate(results) if not ok]
    if failures:
        raise AssertionError("\n".join(failures))
    return [value for _, value in results]


def error_of(action: Callable[[], Any]) -> str:
    """What a NeoXError says that `action` raises, for a rank to give back; "no error" when it raises none."""
    try:
        action()
    except NeoXError as error:
        return str(error)
    return "no error"


def _receive(pipe: Any, rank: int, timeout_seconds: float) -> tuple[bool, Any]:
    if not pipe.poll(timeout_seconds):
        return False, f"no answer from rank {rank} after {timeout_seconds} s"
    try:
        return pipe.recv()
    except EOFError:
        return False, f"rank {rank} died without an answer"


def _rank_main(
    rank: int, size: int, directory: str, sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    gc.freeze()  # or every collection looks at all that the parent holds: thousands of collected tests
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{Path(directory) / 'rendezvous'}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=120),
        )
        dist.all_reduce(
            torch.zeros(1)
        )  # a rank that left before the others are connected would break their connections
        sender.send((True, function(rank, *arguments)))
    except BaseException:
        sender.send((False, traceback.format_exc()))
    finally:
        sender.close()
        os._exit(0)  # the parent's exit handlers and threads are not ours to run
