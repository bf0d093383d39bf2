"""Where one rank cannot read its part of a model, or holds what is not in it, all ranks say so: none waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.checkpointing.state_file import Shapes
from megatron.conversion.fill import fill
from megatron.engine.protocol import FullTensor, Piece
from megatron.errors import CheckpointError
from megatron.mpu.groups import Group, build_process_groups
from megatron.mpu.topology import Topology
from tests.worlds import error_of, run_world


class DamagedSource:
    """Two tensors, the second of which cannot be read."""

    description = "a model"
    shapes: ClassVar[Shapes] = {"a/weight": (4,), "b/weight": (4,)}

    def read(self, name: str) -> Tensor:
        if name == "b/weight":
            raise CheckpointError("the file of b is damaged")
        return torch.ones(4)


def test_all_ranks_say_what_one_of_them_cannot_do() -> None:
    of_ranks = run_world(2, _fill_all)
    assert of_ranks[0] == of_ranks[1]
    damaged, absent = of_ranks[0]
    assert damaged == "loading a model failed: rank 1: the file of b is damaged"
    assert "1 parameter of the model is not in it: c" in absent


def _fill_all(rank: int) -> tuple[str, str]:
    world = build_process_groups(Topology(pipe=1, data=2, tensor=1)).world
    damaged = error_of(lambda: _fill({"ab"[rank]: Piece((0,), torch.zeros(4))}, world))
    absent = error_of(lambda: _fill({"ac"[rank]: Piece((0,), torch.zeros(4))}, world))
    dist.barrier()
    return damaged, absent


def _fill(pieces: Mapping[str, Piece], world: Group) -> None:
    """What one rank holds of each of the tensors."""
    names = ("a", "c") if "c" in pieces else ("a", "b")
    tensors = {f"{name}/weight": FullTensor((4,), (pieces[name],) if name in pieces else ()) for name in names}
    fill(tensors, DamagedSource(), group=world)
