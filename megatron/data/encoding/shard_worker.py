"""What a worker process of pool.py runs: pieces to shards, counting in an array that it shares with the parent.

Kept apart so that a worker starts quickly: it does not import the progress display.
"""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

from megatron.data.encoding.shard import OnError, ShardNote, write_shard
from megatron.data.encoding.worker import Counts, EncodeRecipe, start_worker, worker_encoder
from megatron.data.inputs.pieces import Piece
from megatron.data.inputs.span import Bad


class Stopped(Exception):
    """The parent has ended the work."""


def start_shard_worker(recipe: EncodeRecipe, engine: Path, shared: Any) -> None:
    """Initialise a worker. shared: a multiprocessing Array of one number a field of Counts, and one that is 1 when work is to end."""
    global _shared
    _shared = shared
    start_worker(recipe, engine)


def write_shard_in_worker(piece: Piece, directory: Path, on_error: OnError) -> ShardNote | Bad:
    """`write_shard` with this worker's encoder. Raises Stopped when the parent says so."""
    return write_shard(piece, worker_encoder(), directory, on_error=on_error, report=_report)


def _report(counts: Counts) -> None:
    with _shared.get_lock():
        if _shared[-1]:
            raise Stopped
        for i, count in enumerate(astuple(counts)):
            _shared[i] += count


_shared: Any = None
