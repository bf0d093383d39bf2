"""The format in which gradients of half-precision models travel between the processes that sum them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from tests.deepspeed_world import Case, start_engine
from tests.worlds import run_world

STATIC = {"fp16": {"enabled": True, "loss_scale": 256}}
CASES = {
    f"stage {stage}, {precision}": Case(data=2, zero=stage, accumulation=2, precision=precision, overrides=overrides)
    for stage in (1, 2, 3)
    for precision, overrides in (("bfloat16", {}), ("fp16", STATIC))
} | {"pipeline, bfloat16": Case(pipe=1, data=2, accumulation=2, precision="bfloat16")}
FORMATS = {"bfloat16": {torch.bfloat16}, "fp16": {torch.float16}}
LARGER_THAN_A_NORM = 16


@contextmanager
def watching() -> Iterator[set[torch.dtype]]:
    """The formats of what is summed over processes, by stages 1 and 2 and by stage 3."""
    from deepspeed.runtime.comm import coalesced_collectives

    seen: set[torch.dtype] = set()

    def watched(collective: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensor: Tensor, *values: Any, **options: Any) -> Any:
            if tensor.numel() > LARGER_THAN_A_NORM:
                seen.add(tensor.dtype)
            return collective(tensor, *values, **options)

        return call

    scatter = "_torch_reduce_scatter_fn"
    with (
        patch.object(dist, "all_reduce", watched(dist.all_reduce)),
        patch.object(coalesced_collectives, scatter, watched(getattr(coalesced_collectives, scatter))),
    ):
        yield seen


def _formats(rank: int) -> dict[str, tuple[set[torch.dtype], set[torch.dtype]]]:
    def of_a_step(case: Case, **keys: Any) -> set[torch.dtype]:
        engine = start_engine(replace(case, overrides={**case.overrides, **keys}))
        with watching() as seen:
            engine.step(0)
        return seen

    return {name: (of_a_step(case), of_a_step(case, fp32_allreduce=True)) for name, case in CASES.items()}


def test_fp32_allreduce_sums_gradients_in_fp32() -> None:
    for report in run_world(2, _formats):
        for name, (plain, wide) in report.items():
            assert plain == FORMATS[CASES[name].precision], name
            assert wide == {torch.float32}, name
