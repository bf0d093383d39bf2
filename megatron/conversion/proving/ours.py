"""Our model computed from a source of weights, layer by layer: one layer is in memory at a time, so that any size of model can be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from megatron.checkpointing.names import WEIGHT
from megatron.conversion.mapping.shapes import model_specs
from megatron.conversion.proving.prompts import compared_positions
from megatron.model.gpt import build_layer_specs
from megatron.model.products import with_plain_products
from megatron.model.sequential import build_layer
from megatron.model.spec import BuildContext, LayerSpec
from megatron.model.stream import Stream
from megatron.mpu.shard import shard_of
from megatron.neox_arguments.resolving.checks.model import MASKED

if TYPE_CHECKING:
    from megatron.conversion.opening import OpenedModel

EMBEDDING, HEAD = "embedding", "head"


@torch.inference_mode()
def our_outputs(
    ours: OpenedModel,
    sequences: Sequence[Tensor],
    *,
    dtype: torch.dtype | None,
    computing: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Logits [compared positions, v] of sequences int64 [1, s]; of a reward model the score of the last token, [1].

    dtype: what weights are rounded to first, None = as they are stored; computing: the dtype of all that follows.
    """
    streams: list[Stream] = []
    is_reward_model = ours.architecture.train_impl == "rm"
    for spec, layer in _layers(ours, dtype, computing):
        if spec.name == HEAD:
            return [_head_outputs(layer, stream, is_reward_model=is_reward_model) for stream in streams]
        streams = _after(spec, layer, sequences, streams)
    raise AssertionError("a model ends with its head")


@torch.inference_mode()
def our_hidden_states(ours: OpenedModel, sequence: Tensor, *, dtype: torch.dtype | None) -> Iterator[Tensor]:
    """Hidden states fp32 [s, h] of a sequence [1, s] behind the embedding, each block but the last, and the final norm."""
    streams: list[Stream] = []
    last_block = ours.architecture.num_layers + 1
    for spec, layer in _layers(ours, dtype, torch.float32):
        if spec.name == HEAD:
            return
        streams = _after(spec, layer, [sequence], streams)
        if spec.number != last_block:
            yield streams[0].hidden[:, 0]


def _specs(ours: OpenedModel) -> list[LayerSpec]:
    """The layers by the settings of the run where they are known: what an `Architecture` said wrongly of it, theirs would compute wrongly as well."""
    if ours.saved_args is None:
        return model_specs(ours.architecture)
    rows = ours.architecture.vocab_size
    kinds = ["global" if kind in MASKED else kind for kind in ours.saved_args.attention_config]
    plain = with_plain_products(ours.saved_args)
    args = plain.model_copy(update={"attention_config": kinds, "sequence_parallel": False})
    return build_layer_specs(args, vocab_size=rows, padded_vocab_size=rows)


def _layers(
    ours: OpenedModel, dtype: torch.dtype | None, computing: torch.dtype
) -> Iterator[tuple[LayerSpec, nn.Module]]:
    for spec in _specs(ours):
        layer = build_layer(spec, BuildContext(dtype=computing)).eval()
        for parameter in layer.parameters():
            stored = ours.source.read(f"{shard_of(parameter).name}/{WEIGHT}")
            parameter.data.copy_(stored if dtype is None else stored.to(dtype))
            del stored
        yield spec, layer
        del layer


def _after(spec: LayerSpec, layer: nn.Module, sequences: Sequence[Tensor], streams: Sequence[Stream]) -> list[Stream]:
    if spec.name == EMBEDDING:
        return [layer(tokens, torch.arange(tokens.shape[1])[None]) for tokens in sequences]
    return [layer(stream) for stream in streams]


def _head_outputs(head: nn.Module, stream: Stream, *, is_reward_model: bool) -> Tensor:
    length = stream.hidden.shape[0]
    positions = torch.tensor([length - 1]) if is_reward_model else compared_positions(length)
    outputs: Tensor = head(stream.with_hidden(stream.hidden[positions]))[0]
    return outputs
