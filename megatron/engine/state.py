"""What an engine's checkpoints hold, from the flat tensors that its optimizer updates: pieces of full, layout-free tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from megatron.engine.pieces import shard_pieces
from megatron.engine.protocol import FullTensor, Piece
from megatron.mpu.shard import shard_of


@dataclass(frozen=True)
class Fragment:
    """Elements [start, start + length) of a flattened local shard are elements [flat_start, ...) of `flat`."""

    parameter: nn.Parameter
    start: int
    flat: Tensor
    flat_start: int
    length: int


def full_tensors(
    fragments: Iterable[Fragment], moments: Callable[[Tensor], Mapping[str, Tensor]]
) -> dict[str, FullTensor]:
    """The fp32 weights of the fragments and the `moments` of each flat tensor, under names such as `"2.dense.weight/exp_avg"`; views."""
    shapes: dict[str, tuple[int, ...]] = {}
    pieces: dict[str, list[Piece]] = {}
    for fragment in fragments:
        info = shard_of(fragment.parameter)
        for key, flat in {"weight": fragment.flat.detach(), **moments(fragment.flat)}.items():
            values = flat.narrow(0, fragment.flat_start, fragment.length)
            name = f"{info.name}/{key}"
            shapes[name] = info.logical_shape
            pieces.setdefault(name, []).extend(shard_pieces(info, fragment.start, values))
    return {name: FullTensor(shapes[name], tuple(parts)) for name, parts in pieces.items() if parts}
