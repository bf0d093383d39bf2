"""A copy of a run's state in host memory, taken in the time of a memcpy: training stands still for as long as this takes.

Pieces are views of a few large tensors, so what is copied are the stretches of memory that they lie in, gaps and all; the copies of
the pieces are the same views of the copied stretches. The memory is got once, beside the first steps, and used for every save.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.checkpointing.saving.background import in_background
from megatron.checkpointing.saving.host_memory import host_memory
from megatron.engine.protocol import FullTensor, Piece
from megatron.errors import CheckpointError

ALIGNMENT = 64
LARGEST_GAP = 1 << 16
"""Bytes between two pieces that are rather copied along than left out by a second copy."""


@dataclass
class Stretch:
    """The bytes [start, end) of a storage, and where in the host memory they go."""

    storage: torch.UntypedStorage
    start: int
    end: int
    place: int = 0

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    def copy_to(self, memory: Tensor) -> None:
        """Copy it to its place there; begin to, where it comes from a GPU."""
        # Both begin at a multiple of ALIGNMENT. torch copies words faster than single bytes.
        word = torch.int32 if self.size % 4 == 0 else torch.uint8
        count = self.size // word.itemsize
        source, target = (
            _view(word, storage, start // word.itemsize, (count,), (1,))
            for storage, start in ((self.storage, self.start), (memory.untyped_storage(), self.place))
        )
        target.copy_(source, non_blocking=True)


class HostCopies:
    """Room for one copy of this rank's share of the state: a new copy takes the place of the one before."""

    def __init__(self) -> None:
        self._memory: Future[Tensor] | None = None
        self._room = 0

    def prepare(self, tensors: Mapping[str, FullTensor]) -> None:
        """Begin to get the memory for a copy of tensors like these, in the background."""
        stretches = stretches_of(_pieces(tensors))
        devices = {stretch.storage.device.type: stretch.storage.device for stretch in stretches}
        size, device = _end(stretches), devices.get("cuda", torch.device("cpu"))
        self._room = size
        self._memory = in_background(lambda: host_memory(size, device=device), name="memory for checkpoints")

    @torch.no_grad()
    def take(self, tensors: Mapping[str, FullTensor]) -> dict[str, FullTensor]:
        """Copies of all pieces, which stay as they are until the next call. Raises CheckpointError when there is no memory for them."""
        stretches = stretches_of(_pieces(tensors))
        if self._memory is None or _end(stretches) > self._room:
            self.prepare(tensors)
        memory = self._wait_for_memory()
        for stretch in stretches:
            stretch.copy_to(memory)
        for device in {stretch.storage.device for stretch in stretches if stretch.storage.device.type == "cuda"}:
            torch.cuda.current_stream(device).synchronize()
        found = _by_storage(stretches)
        return {
            name: FullTensor(full.shape, tuple(_copied(piece, found, memory) for piece in full.pieces))
            for name, full in tensors.items()
        }

    def _wait_for_memory(self) -> Tensor:
        assert self._memory is not None
        try:
            return self._memory.result()
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"async_save needs {self._room / 2**30:.1f} GiB of host memory for each process's copy of its share of the state, which "
                f"cannot be had ({error}); set async_save to false"
            ) from error


def stretches_of(pieces: Iterable[Piece]) -> list[Stretch]:
    """The stretches of memory that pieces lie in, each with its place behind the one before."""
    extents: dict[int, tuple[torch.UntypedStorage, list[tuple[int, int]]]] = {}
    for piece in pieces:
        storage = piece.tensor.untyped_storage()
        extents.setdefault(storage.data_ptr(), (storage, []))[1].append(_extent(piece.tensor))
    found: list[Stretch] = []
    for storage, parts in extents.values():
        last: Stretch | None = None
        for start, end in sorted(parts):
            if last is None or start - last.end > LARGEST_GAP:
                last = Stretch(storage, start - start % ALIGNMENT, end)
                found.append(last)
            last.end = max(last.end, end)
    place = 0
    for stretch in found:
        stretch.place = place
        place += -(-stretch.size // ALIGNMENT) * ALIGNMENT
    return found


def _pieces(tensors: Mapping[str, FullTensor]) -> Iterable[Piece]:
    return (piece for full in tensors.values() for piece in full.pieces if piece.tensor.numel())


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The first byte of its storage that a tensor with elements uses, and the one behind the last."""
    first = int(tensor.storage_offset())
    last = first + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return first * tensor.itemsize, (last + 1) * tensor.itemsize


def _end(stretches: list[Stretch]) -> int:
    return stretches[-1].place + stretches[-1].size if stretches else 0


def _by_storage(stretches: list[Stretch]) -> dict[int, list[Stretch]]:
    found: dict[int, list[Stretch]] = {}
    for stretch in stretches:
        found.setdefault(stretch.storage.data_ptr(), []).append(stretch)
    return found


def _copied(piece: Piece, stretches: Mapping[int, list[Stretch]], memory: Tensor) -> Piece:
    """The same view of the copy."""
    tensor = piece.tensor
    if not tensor.numel():
        return Piece(piece.offsets, tensor.detach().cpu())
    first, _ = _extent(tensor)
    within = next(each for each in stretches[tensor.untyped_storage().data_ptr()] if each.start <= first < each.end)
    offset = (within.place + first - within.start) // tensor.itemsize
    return Piece(piece.offsets, _view(tensor.dtype, memory.untyped_storage(), offset, tensor.shape, tensor.stride()))


def _view(
    dtype: torch.dtype, storage: torch.UntypedStorage, offset: int, shape: Sequence[int], stride: Sequence[int]
) -> Tensor:
    empty = torch.empty(0, dtype=dtype, device=storage.device)
    view: Tensor = empty.set_(storage, offset, shape, stride)
    return view
