"""Small configurations and clusters for the tests of planning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.smallest_world import smallest_world
from megatron.planning.hardware.devices import DEVICES, Cluster, Device
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import CUDA_ALLOWANCE
from megatron.planning.search.search import COMMUNICATION, Search
from tests.shipped import read

MEDIUM: dict[str, Any] = {
    "num_layers": 12,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "seq_length": 1024,
    "pos_emb": "rotary",
    "no_weight_tying": True,
    "precision": "bfloat16",
    "train_batch_size": 64,
    "train_micro_batch_size_per_gpu": 2,
    "train_iters": 1000,
    "tokenizer_type": "CharLevelTokenizer",
}


def config(**changes: Any) -> ConfigValues:
    """The values of a model of 600 million parameters; None removes a key."""
    merged = {**MEDIUM, **changes}
    return ConfigValues.from_dict({key: value for key, value in merged.items() if value is not None})


def arguments(world_size: int = 1, **changes: Any) -> NeoXArgs:
    """Its arguments."""
    return NeoXArgs.from_values(config(**changes), world_size=world_size, planning=True)


def shipped(name: str, **changes: Any) -> NeoXArgs:
    """The arguments of a config of this repository, on as many devices as a copy of it takes."""
    values = read(name)
    return NeoXArgs.from_dict({**values.values, **changes}, world_size=smallest_world(values), planning=True)


def unbuilt(**settings: Any) -> NeoXArgs:
    """The arguments of a model of 100 million parameters that may ask for what is not built yet."""
    return NeoXArgs.from_dict(
        {
            "num_attention_heads": 12,
            "num_layers": 12,
            "hidden_size": 768,
            "seq_length": 512,
            "train_micro_batch_size_per_gpu": 1,
            "train_iters": 1,
            **settings,
        },
        planning=True,
    )


def cluster(nodes: int = 1, devices_per_node: int = 8, *, usable: int | None = None) -> Cluster:
    """Nodes of A100-80GB, or of the same with memory of which `usable` bytes may be planned with."""
    return Cluster(nodes, devices_per_node, DEVICES["A100-80GB"] if usable is None else device_with(usable))


def device_with(usable: int) -> Device:
    """An accelerator with this much usable memory, up to rounding."""
    return replace(
        DEVICES["A100-80GB"], name="test", memory_bytes=int((usable + CUDA_ALLOWANCE) / (1 - COMMUNICATION)) + 1
    )


def search(values: ConfigValues, place: Cluster, *, vocab_size: int = 512) -> Search:
    """A search for a config whose layout is legal on the cluster."""
    args = NeoXArgs.from_values(values, world_size=place.world_size, planning=True)
    return Search(args, values=values, cluster=place, vocab_size=vocab_size, given=Layout.of(args))
