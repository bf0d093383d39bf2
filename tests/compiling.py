"""What tests of compiled blocks share: a cache of graphs, and how many graphs were made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch._dynamo
from torch._dynamo.utils import counters

from megatron.model import compiled

GRAPHS_AND_NO_KERNELS = "aot_eager"
"""A backend that captures the graphs of forward and backward pass and runs torch's operations: a tenth of the time of compiling kernels."""

# Kept from one session to the next, as users keep theirs. (Whoever imports torch's compiler sets it to a folder shared by all programs.)
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / "deepy-neox-tests-torch-graphs")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no further processes beside those of the test


@contextmanager
def fresh_graphs(backend: str = compiled.BACKEND) -> Iterator[None]:
    """Within this context, blocks are compiled by `backend`, and nothing is left of graphs made before."""
    usual, compiled.BACKEND = compiled.BACKEND, backend
    compiled._regions.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    try:
        yield
    finally:
        compiled.BACKEND = usual
        compiled._regions.cache_clear()
        torch._dynamo.reset()


def graphs() -> int:
    """How many graphs were captured since the context began."""
    return counters["stats"]["unique_graphs"]


def kernels() -> tuple[int, int]:
    """(made, found in the cache): graphs of forward and of backward passes since the context began."""
    return counters["inductor"]["fxgraph_cache_miss"], counters["inductor"]["fxgraph_cache_hit"]
