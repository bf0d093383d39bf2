"""An engine that holds plain tensors, cut into arbitrary hyper-rectangles among the ranks of a world."""

from __future__ import annotations

import os
import random
import signal
import traceback
from collections.abc import Callable

import torch

from megatron.checkpointing.rectangles import Rectangle
from megatron.engine.protocol import FullTensor, Piece
from megatron.mpu.groups import Group, ProcessGroups
from megatron.mpu.topology import Topology

Shapes = dict[str, tuple[int, ...]]
SHAPES: Shapes = {
    f"{name}/{kind}": shape
    for name, shape in {
        "0.word_embeddings.weight": (37, 6),
        "2.attention.dense.bias": (7,),
        "2.mlp.linear1.weight": (3, 8, 5),
        "4.norm.scale": (),
    }.items()
    for kind in ("weight", "exp_avg")
}


class FakeEngine:
    """What checkpointing knows of an engine: groups, pieces of full tensors, scalars, and a count of `after_load` calls."""

    def __init__(self, tensors: dict[str, FullTensor], *, world: Group | None = None) -> None:
        self.tensors = tensors
        self.scalars: dict[str, float | int] = {"step": 7, "loss_scale": 0.1}
        self.calls: list[str] = []
        world = world or Group()
        self.groups = ProcessGroups(topology=Topology(data=world.size), rank=world.rank, data=world, world=world)

    def state_tensors(self, *, for_saving: bool = False) -> dict[str, FullTensor]:
        return self.tensors

    def state_scalars(self) -> dict[str, float | int]:
        return self.scalars

    def load_scalars(self, scalars: dict[str, float | int]) -> None:
        self.calls.append("load_scalars")
        self.scalars = scalars

    def after_load(self) -> None:
        self.calls.append("after_load")

    def fill(self, full: dict[str, torch.Tensor]) -> FakeEngine:
        """Write the values of full tensors into the pieces."""
        for name, tensor in self.tensors.items():
            for piece in tensor.pieces:
                piece.tensor.copy_(region(full[name], piece))
        return self

    def holds(self, full: dict[str, torch.Tensor]) -> bool:
        """Whether every piece equals its region of the full tensor, to the bit."""
        return all(
            same_bits(piece.tensor, region(full[name], piece))
            for name in self.tensors
            for piece in self.tensors[name].pieces
        )


def fake_engine(shapes: Shapes = SHAPES, *, seed: int = 0, rank: int = 0, world: Group | None = None) -> FakeEngine:
    """An engine of `rank` in a world cut at random by `seed`; with zeros in its pieces."""
    size = world.size if world else 1
    return FakeEngine(random_pieces(shapes, seed=seed, rank=rank, size=size), world=world)


def full_values(seed: int, shapes: Shapes = SHAPES) -> dict[str, torch.Tensor]:
    """Random bits as fp32 values, NaNs, infinities and denormals among them."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(-(2**31), 2**31, shape, generator=generator, dtype=torch.int64)
        .to(torch.int32)
        .view(torch.float32)
        for name, shape in shapes.items()
    }


def random_pieces(shapes: Shapes, *, seed: int, rank: int, size: int) -> dict[str, FullTensor]:
    """This rank's pieces when every tensor is cut at random, some parts of it being held by several ranks."""
    dice = random.Random(seed)  # thrown alike on every rank, whoever holds what
    tensors = {}
    for name, shape in shapes.items():
        mine = []
        for rectangle in random_cut(shape, dice):
            holders, shared, strided = (
                [dice.randrange(size), dice.randrange(size)],
                dice.random() < 0.3,
                dice.random() < 0.5,
            )
            if rank == holders[0] or (shared and rank == holders[1]):
                mine.append(Piece(rectangle.start, strided_zeros(rectangle.size, strided=strided)))
        whole_copy, named_by_all = dice.random() < 0.3, dice.random() < 0.5
        if whole_copy and rank == size - 1:  # as of tied embeddings
            mine.append(Piece((0,) * len(shape), torch.zeros(shape)))
        if mine or named_by_all:
            tensors[name] = FullTensor(shape, tuple(mine))
    return tensors


def random_cut(shape: tuple[int, ...], dice: random.Random) -> list[Rectangle]:
    """Disjoint rectangles that cover the shape."""
    parts = [Rectangle((0,) * len(shape), shape)]
    for _ in range(dice.randrange(6) if shape else 0):
        part = parts.pop(dice.randrange(len(parts)))
        dimension = dice.randrange(len(shape))
        cut = dice.randint(0, part.size[dimension])  # now and then an empty part
        for offset, length in ((0, cut), (cut, part.size[dimension] - cut)):
            start, size = list(part.start), list(part.size)
            start[dimension] += offset
            size[dimension] = length
            parts.append(Rectangle(tuple(start), tuple(size)))
    return parts


def strided_zeros(shape: tuple[int, ...], *, strided: bool) -> torch.Tensor:
    """Zeros, as a view with gaps in memory if `strided`."""
    return torch.zeros(*shape, 3)[..., 1] if strided else torch.zeros(shape)


def region(full: torch.Tensor, piece: Piece) -> torch.Tensor:
    """What of the full tensor a piece covers."""
    spans = [slice(start, start + length) for start, length in zip(piece.offsets, piece.tensor.shape, strict=True)]
    return full[tuple(spans)]


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equality that also tells NaNs apart."""
    return torch.equal(first.contiguous().view(torch.int32), second.contiguous().view(torch.int32))


def killed(action: Callable[[], object]) -> bool:
    """Run `action` in a forked process; whether it died by SIGKILL (else it must have succeeded)."""
    process = os.fork()
    if process == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the forked process raised an exception"
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
