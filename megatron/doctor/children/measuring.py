"""Collective operations between all ranks, checked element by element and timed; and neighbours of the ring of ranks, pair by pair."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.doctor.facts.bandwidth import Collective, Pair
from megatron.mpu.collectives import all_reduce, start_all_gather, start_all_reduce
from megatron.mpu.groups import Group

SIZES = {"cpu": (1 << 16, 1 << 20, 1 << 23), "cuda": (1 << 20, 1 << 24, 1 << 28)}
"""Bytes of results: where latency counts, between, and where bandwidth does."""
PAIR_BYTES = {"cpu": 1 << 22, "cuda": 1 << 26}
SECONDS_A_SIZE = 0.2
MOST_CALLS = 20
PERIOD = 997
"""The numbers in a tensor begin again after so many: a prime, so that pieces that are exchanged do not look alike."""


def measure(world: Group, device: torch.device) -> tuple[list[Collective], list[Pair], str]:
    """(times of operations, times of neighbours, what this rank found wrong) (collective)."""
    collectives: list[Collective] = []
    wrong = ""
    for size in SIZES[device.type]:
        for operation, run in (("all-reduce", _all_reduce), ("all-gather", _all_gather)):
            total, call, problem = run(size // 4, world, device)
            collectives.append(Collective(operation, total, _slowest(_time(call, world, device), world, device)))
            wrong = wrong or problem
    return collectives, _measure_pairs(world, device), wrong


def pattern(count: int, rank: int, device: torch.device) -> Tensor:
    """float32 [count] that differs by place and by rank. Sums over ranks are exact: they are whole numbers below 2^24."""
    return (torch.arange(count, device=device) % PERIOD + rank).float()


def ring_phases(ranks: int) -> list[list[tuple[int, int]]]:
    """Each rank with the next, in rounds in which no rank occurs twice."""
    edges = [(rank, (rank + 1) % ranks) for rank in range(ranks if ranks > 2 else ranks - 1)]
    last = edges.pop() if ranks > 2 and ranks % 2 else None
    rounds = [edges[0::2], edges[1::2], [last] if last else []]
    return [pairs for pairs in rounds if pairs]


def _all_reduce(count: int, world: Group, device: torch.device) -> tuple[int, Callable[[], object], str]:
    found = all_reduce(pattern(count, world.rank, device), world)
    expected = pattern(count, 0, device) * world.size + world.size * (world.size - 1) / 2
    zeros = torch.zeros(count, device=device)
    return 4 * count, lambda: start_all_reduce(zeros, world).wait(), _difference("all-reduce", found, expected)


def _all_gather(count: int, world: Group, device: torch.device) -> tuple[int, Callable[[], object], str]:
    count = max(1, count // world.size)
    piece = pattern(count, world.rank, device)
    found = start_all_gather(piece, world).wait()
    expected = torch.cat([pattern(count, each, device) for each in range(world.size)])
    size = 4 * count * world.size
    return size, lambda: start_all_gather(piece, world).wait(), _difference("all-gather", found, expected)


def _difference(operation: str, found: Tensor, expected: Tensor) -> str:
    wrong = int((found != expected).sum())
    return f"{wrong:,} of {found.numel():,} elements of an {operation} are wrong" if wrong else ""


def _time(call: Callable[[], object], world: Group, device: torch.device) -> float:
    """Seconds of one call, from as many as take a fifth of a second; all ranks make equally many."""
    call()
    one = _slowest(_seconds(call, 1, device), world, device)
    return _seconds(call, max(1, min(MOST_CALLS, int(SECONDS_A_SIZE / max(one, 1e-9)))), device)


def _seconds(call: Callable[[], object], count: int, device: torch.device) -> float:
    dist.barrier()
    _wait(device)
    begin = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return (time.perf_counter() - begin) / count


def _slowest(seconds: float, world: Group, device: torch.device) -> float:
    return float(all_reduce(torch.tensor([seconds], device=device), world, op=dist.ReduceOp.MAX))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _measure_pairs(world: Group, device: torch.device) -> list[Pair]:
    """The neighbours of the ring; all ranks learn all times."""
    rank = world.rank
    size = PAIR_BYTES[device.type]
    sent, received = (torch.zeros(size // 4, device=device) for _ in range(2))
    pairs = []
    for edges in ring_phases(world.size):
        mine = next(((a, b) for a, b in edges if rank in (a, b)), None)
        other = None if mine is None else mine[0] if rank == mine[1] else mine[1]
        own = [0.0] * len(edges)
        for timed in (False, True):
            dist.barrier()
            seconds = _seconds_of_exchange(sent, received, other, device) if other is not None else 0.0
            if mine is not None and timed:
                own[edges.index(mine)] = seconds
        times = all_reduce(torch.tensor(own, device=device), world, op=dist.ReduceOp.MAX)
        pairs += [Pair(edge, size, taken) for edge, taken in zip(edges, times.tolist(), strict=True)]
    return pairs


def _seconds_of_exchange(sent: Tensor, received: Tensor, other: int, device: torch.device) -> float:
    _wait(device)
    begin = time.perf_counter()
    exchange = [dist.P2POp(dist.isend, sent, other), dist.P2POp(dist.irecv, received, other)]
    for work in dist.batch_isend_irecv(exchange):
        work.wait()
    _wait(device)
    return time.perf_counter() - begin
