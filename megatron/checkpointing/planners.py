"""Tells torch.distributed.checkpoint which hyper-rectangles of which full tensors each rank writes, and which it wants to read.

torch's own planners know tensors of a few classes of its own; ours know `FullTensor`, so any cut of a tensor over any ranks
(tensor parallel, ZeRO's flat fragments, pipeline stages) is saved and loaded through views, without a copy and without a
tensor subclass. The files are ordinary ones of torch.distributed.checkpoint: its tools read them.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from megatron.checkpointing.rectangles import Offer, Rectangle, divide, tiles
from megatron.engine.protocol import FullTensor, Piece

CHUNK_BYTES = 1 << 26
"""The most that is saved as one chunk: whoever wants a part of a chunk reads all of it, and holds it for that time."""


class PieceSavePlanner(SavePlanner):
    """Offers this rank's pieces of `tensors`; on the first rank, divides what all offer so that every element is written exactly once.

    The tensors are given here, and torch an empty state dict: it would take the time of writing a small tensor to look at each.
    """

    def __init__(self, tensors: Mapping[str, FullTensor]) -> None:
        self._tensors = tensors

    def set_up_planner(
        self, state_dict: dict[str, Any], storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        """Nothing to add."""

    def create_local_plan(self) -> SavePlan:
        """One write item a non-empty piece. The names go along, so that a tensor which nobody offers is noticed."""
        items = [
            _write_item(name, tensor.shape, rectangle_of(piece), TensorProperties.create_from_tensor(piece.tensor))
            for name, tensor in self._tensors.items()
            for piece in nonempty(tensor.pieces)
        ]
        offered = {item.index.fqn for item in items}
        return SavePlan(items, planner_data=[name for name in self._tensors if name not in offered])

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        """The plans cut to disjoint items, and the metadata of the checkpoint.

        Raises ValueError when ranks disagree about a tensor, or when no rank holds some element of it.
        """
        offers: dict[str, list[Offer]] = {}
        facts: dict[str, TensorWriteData] = {}
        for rank, plan in enumerate(all_plans):
            for item in plan.items:
                assert item.tensor_data is not None
                _check_agreement(item.index.fqn, facts.setdefault(item.index.fqn, item.tensor_data), item.tensor_data)
                chunk = item.tensor_data.chunk
                offers.setdefault(item.index.fqn, []).append(
                    Offer(rank, Rectangle(tuple(chunk.offsets), tuple(chunk.sizes)))
                )
        _check_names(all_plans, offers)
        items: list[list[WriteItem]] = [[] for _ in all_plans]
        metadata: dict[str, Any] = {}
        load: dict[int, int] = {}
        for name, offered in offers.items():
            shape, properties = tuple(facts[name].size), facts[name].properties
            shares = divide(offered, load)
            _check_cover(name, shape, shares)
            shares = [
                Offer(share.rank, tile)
                for share in shares
                for tile in tiles(share.rectangle, CHUNK_BYTES // properties.dtype.itemsize)
            ]
            metadata[name] = TensorStorageMetadata(
                properties, torch.Size(shape), [_chunk(share.rectangle) for share in shares]
            )
            for index, share in enumerate(shares):
                items[share.rank].append(_write_item(name, shape, share.rectangle, properties, index))
        plans = [
            dataclasses.replace(plan, items=mine, planner_data=None)
            for plan, mine in zip(all_plans, items, strict=True)
        ]
        return plans, Metadata(metadata)

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        """Nothing to add."""
        return new_plan

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        """The view that a write item stands for: a whole piece, or a part of one."""
        assert write_item.tensor_data is not None
        chunk = write_item.tensor_data.chunk
        wanted = Rectangle(tuple(chunk.offsets), tuple(chunk.sizes))
        pieces = nonempty(self._tensors[write_item.index.fqn].pieces)
        piece = next(piece for piece in pieces if rectangle_of(piece).contains(wanted))
        return narrow(piece.tensor, [a - b for a, b in zip(wanted.start, piece.offsets, strict=True)], wanted.size)


class PieceLoadPlanner(LoadPlanner):
    """Reads whatever parts of whatever was saved lie in this rank's pieces, in place."""

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Take the full tensors by name (`state_dict`) and what the checkpoint holds."""
        assert metadata is not None
        self._saved = metadata.state_dict_metadata
        self._pieces: dict[str, list[Piece]] = {name: nonempty(tensor.pieces) for name, tensor in state_dict.items()}

    def create_local_plan(self) -> LoadPlan:
        """One read item for every overlap of a piece with a saved chunk."""
        items: list[ReadItem] = []
        for name, pieces in self._pieces.items():
            saved = self._saved[name]
            assert isinstance(saved, TensorStorageMetadata)
            items += create_read_items_for_chunk_list(name, saved, [_chunk(rectangle_of(piece)) for piece in pieces])
        return LoadPlan(items)

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        """Ranks read independently."""
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        """Nothing to add."""
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Never asked for: everything that is not a tensor lies in state.json."""
        raise NotImplementedError("checkpoints hold tensors only")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        """The view that a read item fills. Tied copies share name and offset, so the piece is found by its number."""
        assert read_item.dest_index.index is not None
        piece = self._pieces[read_item.dest_index.fqn][read_item.dest_index.index]
        return narrow(piece.tensor.detach(), read_item.dest_offsets, read_item.lengths)

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing to do: the tensor is a view of its destination."""


def narrow(tensor: Tensor, start: Iterable[int], size: Iterable[int]) -> Tensor:
    """The view of the elements from `start` on, `size` of them in each dimension."""
    for dimension, (first, length) in enumerate(zip(start, size, strict=True)):
        if length != tensor.shape[dimension]:
            tensor = tensor.narrow(dimension, first, length)
    return tensor


def rectangle_of(piece: Piece) -> Rectangle:
    """Where in the full tensor a piece lies."""
    return Rectangle(tuple(piece.offsets), tuple(piece.tensor.shape))


def nonempty(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces that have elements."""
    return [piece for piece in pieces if piece.tensor.numel()]


def _write_item(
    name: str, shape: tuple[int, ...], rectangle: Rectangle, properties: TensorProperties, index: int | None = None
) -> WriteItem:
    return WriteItem(
        index=MetadataIndex(name, rectangle.start, index),
        type=WriteItemType.SHARD,
        tensor_data=TensorWriteData(_chunk(rectangle), properties, torch.Size(shape)),
    )


def _chunk(rectangle: Rectangle) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(rectangle.start), torch.Size(rectangle.size))


def _check_agreement(name: str, first: TensorWriteData, other: TensorWriteData) -> None:
    ours, theirs = ((tuple(data.size), data.properties.dtype) for data in (first, other))
    if ours != theirs:
        raise ValueError(
            f"{name} is {ours[1]} {list(ours[0])} on one rank and {theirs[1]} {list(theirs[0])} on another"
        )


def _check_names(plans: list[SavePlan], offers: Mapping[str, object]) -> None:
    absent = sorted({name for plan in plans for name in plan.planner_data if name not in offers})
    if absent:
        raise ValueError(f"no rank holds any element of {', '.join(absent[:5])}")


def _check_cover(name: str, shape: tuple[int, ...], shares: list[Offer]) -> None:
    whole = Rectangle((0,) * len(shape), shape)
    outside = [share for share in shares if not whole.contains(share.rectangle)]
    if outside:
        raise ValueError(
            f"rank {outside[0].rank} offers {outside[0].rectangle} of {name}, which has shape {list(shape)}"
        )
    held, wanted = sum(share.rectangle.volume for share in shares), math.prod(shape)
    if held != wanted:
        raise ValueError(f"the ranks hold {held} of the {wanted} elements of {name}")
