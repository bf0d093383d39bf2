"""Who holds a run up, read from the heartbeats of its ranks, in words."""

from __future__ import annotations

from collections.abc import Mapping

from megatron import text
from megatron.training.guards.heartbeats import Beat


def describe_stall(before: Mapping[int, Beat], now: Mapping[int, Beat], *, size: int) -> str:
    """The ranks that gave no sign of life between two readings; if all did, those that are less far than the others."""
    silent = [
        rank for rank in range(size) if rank not in now or (rank in before and now[rank].count == before[rank].count)
    ]
    if silent:
        return "; ".join(_silence(rank, now.get(rank)) for rank in silent)
    places = {rank: beat.progress for rank, beat in now.items()}
    last, first = min(places.values()), max(places.values())
    if last == first:
        return (
            f"all ranks answer and are {last.doing}, so one of them waits for what no other does: compare their stacks"
        )
    behind = [rank for rank, place in places.items() if (place.iteration, place.stage) == (last.iteration, last.stage)]
    return f"{text.ranks(behind)} lagged behind, {last.doing}, while others were {first.doing}"


def answering(before: Mapping[int, Beat], now: Mapping[int, Beat]) -> list[int]:
    """The ranks that gave a sign of life between two readings."""
    return [rank for rank, beat in now.items() if rank not in before or beat.count > before[rank].count]


def _silence(rank: int, beat: Beat | None) -> str:
    if beat is None:
        return f"rank {rank} never gave a sign of life"
    return f"rank {rank} does not answer: it was stopped, or its machine is gone; last it was {beat.progress.doing}"
