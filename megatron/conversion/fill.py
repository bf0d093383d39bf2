"""Fills the tensors of a run, in any layout, from a source of full tensors: each rank reads those of which it holds a part, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from megatron.checkpointing.loading.fit import check_fit, merge_shapes
from megatron.checkpointing.planners import narrow, nonempty, rectangle_of
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.rectangles import Rectangle, overlap
from megatron.conversion.source import TensorSource
from megatron.engine.protocol import FullTensor
from megatron.log import get_logger
from megatron.mpu.groups import Group

logger = get_logger(__name__)

SECONDS_BETWEEN_LINES = 20.0


def fill(
    tensors: Mapping[str, FullTensor],
    source: TensorSource,
    *,
    group: Group,
    advice: str = "",
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Copy what `source` holds into the pieces of `tensors`, converting to their dtype (collective over `group`).

    Everything is checked to fit before anything is touched; Raises CheckpointError on every rank when it does not (with `advice`), or when
    the source cannot be read. Vocabulary padding stays as it is. prepare: called before the first tensor is read.
    """
    ranks = Ranks(group, doing=f"loading {source.description}")
    wanted = ranks.every(lambda: {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    ranks.first(lambda: check_fit(source.shapes, merge_shapes(wanted), description=source.description, advice=advice))
    prepare()
    ranks.every(lambda: _copy_all(tensors, source, say=group.rank == 0))


@torch.no_grad()
def _copy_all(tensors: Mapping[str, FullTensor], source: TensorSource, *, say: bool) -> None:
    held = {name: tensor for name, tensor in tensors.items() if nonempty(tensor.pieces)}
    said = time.monotonic()
    for number, (name, tensor) in enumerate(held.items()):
        _copy(tensor, name, source)
        if say and time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            logger.info(f"loading {source.description}: {number + 1} of {len(held)} tensors of this rank")


def _copy(tensor: FullTensor, name: str, source: TensorSource) -> None:
    full = source.read(name)
    whole = Rectangle((0,) * len(tensor.shape), tuple(tensor.shape))
    for piece in nonempty(tensor.pieces):
        wanted = rectangle_of(piece)
        common = overlap(wanted, whole)  # rows of vocabulary padding lie beyond
        if common is None:
            continue
        part = narrow(full, common.start, common.size)
        within = [first - offset for first, offset in zip(common.start, piece.offsets, strict=True)]
        narrow(piece.tensor.detach(), within, common.size).copy_(part)
