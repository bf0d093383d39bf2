"""The model as one module: every layer spec built and run in order, on one pipeline stage.

Parameters are called `"{layer number}.{name in the layer}"`, here as everywhere else; the pipeline executor builds the same layers with
`build_layer`.

Shapes: `b` micro-batch, `s` sequence, `v` padded vocabulary, `t` tensor-parallel size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.model.cache import KeyValueCache
from megatron.model.documents import Documents
from megatron.model.dropout_keys import DropoutKeys
from megatron.model.kept_inputs import AS_THEY_ARE, KeptInputs
from megatron.model.projection import Criterion
from megatron.model.spec import BuildContext, LayerSpec
from megatron.model.stream import Stream
from megatron.mpu.shard import initialize_parameters, name_parameters, set_shard, shard_of

BLOCK = "transformer"


def build_layer(spec: LayerSpec, context: BuildContext) -> nn.Module:
    """The layer of one spec, its parameters named but not yet initialised.

    A parameter that two layers share has the name of the original in both, and a `tied` key equal to that name.
    """
    layer = spec.build(context)
    name_parameters(layer, str(spec.number))
    if spec.tied_parameter:
        owner = spec.number if spec.tied_to is None else spec.tied_to
        name = f"{owner}.{spec.tied_parameter}"
        shared = layer.get_parameter(spec.tied_parameter)
        set_shard(shared, replace(shard_of(shared), name=name, tied=name))
    return layer


def tie_layers(module: nn.Module, specs: Sequence[LayerSpec]) -> None:
    """Let the layers of `specs`, children of `module` named by their numbers, hold one and the same parameter where two share it.

    A layer that shares one with a layer of another pipeline stage keeps its own copy.
    """
    present = {spec.number for spec in specs}
    for spec in specs:
        if spec.tied_to in present:
            path, _, name = spec.tied_parameter.rpartition(".")
            original = module.get_submodule(str(spec.tied_to)).get_parameter(spec.tied_parameter)
            setattr(module.get_submodule(f"{spec.number}.{path}"), name, original)


class SequentialModel(nn.Module):
    """All layers of `specs`, in order.

    seed: initial weights are a function of it and of the parameters' names, None leaves them uninitialised (they are about to be
    loaded); checkpoint_num_layers: in training, keep only the inputs of every so many blocks and compute the rest again in the
    backward pass, 0 = keep everything; kept_inputs: how those inputs are kept.
    """

    def __init__(
        self,
        specs: Sequence[LayerSpec],
        context: BuildContext,
        *,
        seed: int | None,
        checkpoint_num_layers: int = 0,
        kept_inputs: KeptInputs = AS_THEY_ARE,
    ) -> None:
        super().__init__()
        self.specs = tuple(specs)
        self.checkpoint_num_layers = checkpoint_num_layers
        self.kept_inputs = kept_inputs
        for spec in specs:
            self.add_module(str(spec.number), build_layer(spec, context))
        tie_layers(self, self.specs)
        if seed is not None:
            initialize_parameters(self, seed=seed)

    def layer(self, number: int) -> nn.Module:
        """The layer with this number."""
        return self.get_submodule(str(number))

    def forward(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        cache: KeyValueCache | None = None,
        document_ids: Tensor | None = None,
        dropout_keys: Tensor | None = None,
        criterion: Criterion | None = None,
    ) -> Tensor:
        """tokens and position_ids int64 [b, s] -> logits [b, s, v/t]; with a cache, tokens are those that follow what it holds.

        document_ids: int [b, s], rising in each row: tokens do not see those of another number. None: a row is one document.
        dropout_keys: int64 [b], what a model with dropout needs to train; see `Batch`. criterion: gets the head's projection, and what
        it returns is returned in place of logits.
        """
        if cache is not None:
            cache.extend(tokens.shape[1], tokens.device)
        first, *middle, last = self.specs
        stream = self.layer(first.number)(tokens, position_ids, cache, DropoutKeys.of(dropout_keys))
        stream = replace(stream, documents=Documents.of(document_ids))
        stream = run_layers(
            self, middle, stream, checkpoint_num_layers=self.checkpoint_num_layers, kept_inputs=self.kept_inputs
        )
        head = self.layer(last.number)
        result: Tensor = head(stream) if criterion is None else head(stream, criterion)
        return result


def run_layers(
    module: nn.Module,
    specs: Sequence[LayerSpec],
    stream: Stream,
    *,
    checkpoint_num_layers: int,
    kept_inputs: KeptInputs = AS_THEY_ARE,
) -> Stream:
    """The stream through the layers of `specs`, which are children of `module` named by their numbers.

    checkpoint_num_layers, kept_inputs: while `module` trains, as in `SequentialModel`.
    """
    for run in _runs(specs, checkpoint_num_layers):
        if checkpoint_num_layers > 0 and module.training and run[0].name == BLOCK:
            # No layer draws from a generator, whose state would have to be kept.
            with kept_inputs.hooks():
                hidden = checkpoint(
                    _hidden_after, module, run, *stream.tensors(), use_reentrant=False, preserve_rng_state=False
                )
            stream = stream.with_hidden(hidden)
        else:
            stream = _run_each(module, run, stream)
    return stream


def _hidden_after(module: nn.Module, specs: Sequence[LayerSpec], *tensors: Tensor) -> Tensor:
    return _run_each(module, specs, Stream.of_tensors(*tensors)).hidden


def _run_each(module: nn.Module, specs: Sequence[LayerSpec], stream: Stream) -> Stream:
    for spec in specs:
        stream = module.get_submodule(str(spec.number))(stream)
    return stream


def _runs(specs: Sequence[LayerSpec], length: int) -> Iterator[list[LayerSpec]]:
    """The specs in order, `length` consecutive blocks together where they are recomputed together."""
    run: list[LayerSpec] = []
    for spec in specs:
        if run and (run[0].name != BLOCK or spec.name != BLOCK or len(run) == length):
            yield run
            run = []
        run.append(spec)
    if run:
        yield run
