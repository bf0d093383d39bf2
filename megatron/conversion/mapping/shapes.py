"""The parameters that a model of some architecture has: asked of the model itself, built without memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.conversion.mapping.architecture import Architecture, config_keys
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext, LayerSpec
from megatron.mpu.shard import ShardInfo, shard_of
from megatron.neox_arguments import NeoXArgs

_KINDS = {"embedding": "embedding", "transformer": "block", "norm": "norm", "head": "head"}


@dataclass(frozen=True)
class Parameter:
    """name: `"2.attention.dense.weight"`; kind: of its layer (embedding, block, norm, head); block: its number from 0, where it is one;
    module: `"attention.dense"`; leaf: `"weight"`; shape: full, without padding."""

    name: str
    kind: str
    block: int
    module: str
    leaf: str
    shape: tuple[int, ...]


def model_args(architecture: Architecture) -> NeoXArgs:
    """A configuration of nothing but the architecture, in fp32 on one process."""
    keys = config_keys(architecture)
    keys["attention_config"] = ["global"] * architecture.num_layers
    keys |= {"precision": "fp32", "seq_length": architecture.max_position_embeddings, "pipe_parallel_size": 0}
    return NeoXArgs.from_resolved(keys)


def model_specs(architecture: Architecture) -> list[LayerSpec]:
    """The layers of the model, on one process and without padding."""
    rows = architecture.vocab_size
    return build_layer_specs(model_args(architecture), vocab_size=rows, padded_vocab_size=rows)


def model_parameters(args: NeoXArgs, *, vocab_size: int) -> dict[str, ShardInfo]:
    """How each parameter is cut, by name in the order of the layers, on one process and without padding; tied ones once."""
    return _parameters(build_layer_specs(args, vocab_size=vocab_size, padded_vocab_size=vocab_size))


def parameter_shapes(architecture: Architecture) -> Iterator[Parameter]:
    """All parameters in the order of the layers, tied ones once."""
    specs = model_specs(architecture)
    kinds = {spec.number: _KINDS[spec.name] for spec in specs}
    for name, info in _parameters(specs).items():
        number, _, path = name.partition(".")
        module, _, leaf = path.rpartition(".")
        yield Parameter(name, kinds[int(number)], int(number) - 2, module, leaf, tuple(info.logical_shape))


def _parameters(specs: Sequence[LayerSpec]) -> dict[str, ShardInfo]:
    model = SequentialModel(specs, BuildContext(device="meta"), seed=None)
    infos = (shard_of(parameter) for parameter in model.parameters())
    return {info.name: info for info in infos}
