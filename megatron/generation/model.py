"""The model as generation and evaluation run it: forward only, in any tensor- and pipeline-parallel layout, with or without a cache.

Every rank of the `model` group makes the same calls. A pipeline's stages hand on the hidden states of one call at a time; the stages
before the last one need not wait for it, so calls that do not depend on each other overlap.

Shapes: `b` rows, `s` columns, `h` hidden, `n` hidden states, `v` padded vocabulary, `t` tensor-parallel size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron.engine.partition import parameter_counter, partition_layers
from megatron.errors import DataError
from megatron.model.cache import KeyValueCache
from megatron.model.gpt import build_layer_specs
from megatron.model.head import TiedHead
from megatron.model.products import with_plain_products
from megatron.model.sequential import build_layer, tie_layers
from megatron.model.spec import DTYPES, BuildContext, LayerSpec
from megatron.model.stream import Stream
from megatron.mpu.collectives import all_gather
from megatron.mpu.groups import ProcessGroups
from megatron.mpu.linear import ParallelLinear
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import padded_vocab_size

WholeWeights = Callable[[nn.Module], AbstractContextManager[Any]]


def inference_specs(args: NeoXArgs, *, vocab_size: int) -> list[LayerSpec]:
    """The layers of the configured model, for text that grows token by token: no ranks share its sequence."""
    whole_sequence = with_plain_products(args).model_copy(update={"sequence_parallel": False})
    return build_layer_specs(
        whole_sequence, vocab_size=vocab_size, padded_vocab_size=padded_vocab_size(args, vocab_size)
    )


def build_inference_model(
    args: NeoXArgs, *, vocab_size: int, groups: ProcessGroups, device: torch.device
) -> InferenceModel:
    """This rank's part of the configured model, its weights still to be loaded. vocab_size: rows of the vocabulary without padding."""
    specs = inference_specs(args, vocab_size=vocab_size)
    context = BuildContext(groups.tensor, DTYPES[args.precision], device)
    stages = groups.pipe.size
    bounds = [0, len(specs)]
    if stages > 1:
        bounds = partition_layers(
            specs, stages, method=args.pipe_partition_method, count_parameters=parameter_counter(context)
        )
    own = specs[bounds[groups.pipe.rank] : bounds[groups.pipe.rank + 1]]
    return InferenceModel(own, context, groups=groups, device=device, hidden_size=args.hidden_size)


class InferenceModel(nn.Module):
    """The layers `specs` of this rank's pipeline stage, named by their numbers as everywhere; they are never trained here.

    context: says where new weights are made; device: where the model computes. whole_weights: makes the weights of a layer whole while
    the layer runs, where processes hold them in pieces (ZeRO 3); all data-parallel ranks must then make the same calls.
    """

    def __init__(
        self,
        specs: Sequence[LayerSpec],
        context: BuildContext,
        *,
        groups: ProcessGroups,
        device: torch.device,
        hidden_size: int,
        whole_weights: WholeWeights = nullcontext,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.device = device
        self._dtype, self._hidden_size, self._whole_weights = context.dtype, hidden_size, whole_weights
        self._specs = tuple(specs)
        self.is_first, self.is_last = groups.pipe.rank == 0, groups.pipe.rank == groups.pipe.size - 1
        for spec in specs:
            self.add_module(str(spec.number), build_layer(spec, context))
        tie_layers(self, self._specs)
        self.eval()

    def borrow_weights(self, trained: nn.Module) -> None:
        """Use the very parameters of a module with the same layers, which goes on training them."""
        for name, _ in list(self.named_parameters(remove_duplicate=False)):
            owner, _, last = name.rpartition(".")
            setattr(self.get_submodule(owner), last, trained.get_parameter(name))

    def pack_weights(self) -> None:
        """Hold the matrices in the order that a CPU reads fastest, once they are loaded: they can no longer be replaced or borrowed."""
        for module in self.modules():
            if isinstance(module, ParallelLinear | TiedHead):
                module.pack()

    @torch.no_grad()
    def hidden(self, tokens: Tensor, position_ids: Tensor, cache: KeyValueCache | None = None) -> Tensor | None:
        """tokens and position_ids int64 [b, s] -> what the head reads [s, b, h], on the ranks of the last stage; None on the others.

        With a cache, tokens are those that follow what it holds; without one, each row is a text of its own that begins at its first column.
        """
        if cache is not None:
            cache.extend(tokens.shape[1], self.device)
        layers = [self.get_submodule(str(spec.number)) for spec in self._specs]
        if self.is_last:
            layers.pop()  # the head
        if self.is_first:
            embedding = layers.pop(0)
            with self._whole_weights(embedding):
                stream: Stream = embedding(tokens, position_ids, cache)
        else:
            stream = Stream(self._receive(tokens.shape[1], tokens.shape[0]), position_ids, cache)
        for layer in layers:
            with self._whole_weights(layer):
                stream = layer(stream)
        if self.is_last:
            return stream.hidden
        self._send(stream.hidden)
        return None

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, h] of the last stage -> this rank's part of their logits [n, v/t]."""
        head = self.get_submodule(str(self._specs[-1].number))
        with self._whole_weights(head):
            logits: Tensor = head(Stream(hidden[:, None], torch.zeros(1, 0, dtype=torch.int64)))
        return logits[0]

    def gathered_logits(self, hidden: Tensor, *, vocab_size: int) -> Tensor:
        """Hidden states [n, h] of the last stage -> their logits fp32 [n, vocab_size], of the whole vocabulary, on every tensor rank."""
        return all_gather(self.logits(hidden), self.groups.tensor, dim=-1)[:, :vocab_size].float()

    def tell_all_stages(self, values: Tensor) -> Tensor:
        """The `values` of the last stage on every stage; the others give a tensor of the same shape and type, which is overwritten."""
        pipe = self.groups.pipe
        if pipe.size > 1:
            dist.broadcast(values, src=pipe.ranks[-1], group=pipe.handle)
        return values

    def _receive(self, columns: int, rows: int) -> Tensor:
        pipe = self.groups.pipe
        hidden = torch.empty(columns, rows, self._hidden_size, dtype=self._dtype, device=self.device)
        dist.recv(hidden, src=pipe.ranks[pipe.rank - 1], group=pipe.handle)
        return hidden

    def _send(self, hidden: Tensor) -> None:
        pipe = self.groups.pipe
        dist.send(hidden.contiguous(), dst=pipe.ranks[pipe.rank + 1], group=pipe.handle)


def computes_nan(what: str) -> DataError:
    """The error for `what` a model finds no numbers: nothing that follows from NaN means anything."""
    return DataError(f"the model computes NaN for {what}: its weights are broken, or too large for its precision")
