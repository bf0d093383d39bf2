"""The parameters of the model that is wanted, asked of the model itself, built without memory."""

from __future__ import annotations

from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.shard import ShardInfo, shard_of
from megatron.neox_arguments import NeoXArgs


def model_parameters(args: NeoXArgs, *, vocab_rows: int) -> dict[str, ShardInfo]:
    """How each is cut, by name, on one process and without padding; tied ones once. vocab_rows: rows of the vocabulary."""
    specs = build_layer_specs(args, vocab_size=vocab_rows, padded_vocab_size=vocab_rows)
    model = SequentialModel(specs, BuildContext(device="meta"), seed=None)
    infos = (shard_of(parameter) for parameter in model.parameters())
    return {info.name: info for info in infos}
