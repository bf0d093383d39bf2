"""Loads the weights of a checkpoint into a plain module (for generation and evaluation), at any tensor-parallel size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from megatron.checkpointing.loading.load import LoadedCheckpoint, load_tensors
from megatron.checkpointing.manifest import Verification
from megatron.checkpointing.names import WEIGHT
from megatron.checkpointing.places import place
from megatron.engine.protocol import FullTensor, Piece
from megatron.mpu.groups import SINGLE, Group
from megatron.mpu.shard import shard_of


@torch.no_grad()
def load_weights(
    directory: str | Path,
    model: nn.Module,
    *,
    iteration: int | None = None,
    group: Group = SINGLE,
    verification: Verification = "fast",
) -> LoadedCheckpoint:
    """Fill every parameter of `model` (all of which carry a named `ShardInfo`) from a checkpoint, converting to its dtype.

    All ranks of `group` call this, and each reads its own shards. Rows of vocabulary padding become zero; all copies of a tied parameter
    are filled. A damaged checkpoint is passed over for the one before it, which is a warning. Raises CheckpointError when there is no
    checkpoint or it does not fit; the model is then untouched.
    """
    checkpoint, state = load_tensors(
        place(directory),
        weight_tensors(model),
        group=group,
        iteration=iteration,
        verification=verification,
        prepare=lambda: clear_padding(model),
    )
    return LoadedCheckpoint(state.iteration, state.run_state, checkpoint)


def parameter_pieces(parameter: Tensor) -> list[Piece]:
    """Where the parts of a parameter's shard lie in the full tensor, as views.

    Rows of vocabulary padding lie beyond everything that a checkpoint holds, so nothing is read into them.
    """
    info = shard_of(parameter)
    data = parameter.detach()
    if info.dim is None:
        return [Piece((0,) * data.dim(), data)]
    pieces = []
    for chunk in info.chunks():
        offsets = [0] * data.dim()
        offsets[info.dim] = chunk.full_start
        pieces.append(Piece(tuple(offsets), data.narrow(info.dim, chunk.local_start, chunk.length)))
    return pieces


def weight_tensors(model: nn.Module) -> dict[str, FullTensor]:
    """The parameters of a module as pieces of full tensors by name, all copies of a tied one together."""
    tensors: dict[str, FullTensor] = {}
    for parameter in model.parameters():
        info = shard_of(parameter)
        name = f"{info.name}/{WEIGHT}"
        others = tensors[name].pieces if name in tensors else ()  # a tied copy has the name of the original
        tensors[name] = FullTensor(info.logical_shape, (*others, *parameter_pieces(parameter)))
    return tensors


@torch.no_grad()
def clear_padding(model: nn.Module) -> None:
    """Fill the parameters that have vocabulary padding, which nothing is read into, with zeros."""
    for parameter in model.parameters():
        info = shard_of(parameter)
        if info.valid_rows is not None and info.valid_rows < info.full_shape[0]:
            parameter.zero_()
