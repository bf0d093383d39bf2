"""Loads the weights of a checkpoint into a plain module (for generation and evaluation), at any tensor-parallel size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from megatron.checkpointing.fit import WEIGHT
from megatron.checkpointing.layout import find_checkpoint
from megatron.checkpointing.load import LoadedCheckpoint, check_checkpoint, read_tensors
from megatron.checkpointing.ranks import Ranks
from megatron.engine.protocol import FullTensor, Piece
from megatron.mpu.groups import SINGLE
from megatron.mpu.shard import shard_of


@torch.no_grad()
def load_weights(directory: str | Path, model: nn.Module, *, iteration: int | None = None) -> LoadedCheckpoint:
    """Fill every parameter of `model` (all of which carry a named `ShardInfo`) from a checkpoint, converting to its dtype.

    Every rank reads its own shards, without communication. Rows of vocabulary padding become zero; all copies of a tied
    parameter are filled. Raises CheckpointError when there is no checkpoint or it does not fit; the model is then untouched.
    """
    checkpoint = find_checkpoint(directory, iteration=iteration)
    parameters = list(model.parameters())
    tensors = _full_tensors(parameters)
    state = check_checkpoint(checkpoint, {name: tensor.shape for name, tensor in tensors.items()})
    for parameter in parameters:
        _clear_padding(parameter)
    read_tensors(checkpoint, tensors, Ranks(SINGLE, doing=f"loading {checkpoint}"))
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


def _full_tensors(parameters: list[nn.Parameter]) -> dict[str, FullTensor]:
    tensors: dict[str, FullTensor] = {}
    for parameter in parameters:
        info = shard_of(parameter)
        name = f"{info.name}/{WEIGHT}"
        others = tensors[name].pieces if name in tensors else ()  # a tied copy has the name of the original
        tensors[name] = FullTensor(info.logical_shape, (*others, *parameter_pieces(parameter)))
    return tensors


def _clear_padding(parameter: nn.Parameter) -> None:
    info = shard_of(parameter)
    if info.valid_rows is not None and info.valid_rows < info.full_shape[0]:
        parameter.zero_()
