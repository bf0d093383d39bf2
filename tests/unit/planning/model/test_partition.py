"""The arithmetic of pipeline stages, and that the real engine's stages are those that memory is planned for."""

from __future__ import annotations

import itertools

import pytest

from megatron.engine.partition import parameter_counter, partition_layers
from megatron.errors import ConfigError
from megatron.model.gpt import build_layer_specs
from megatron.model.spec import BuildContext
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import stage_layers
from megatron.planning.model.partition import balanced_bounds, partition
from tests.unit.model.builders import build_args

NAMES = ["embedding", *["transformer"] * 6, "norm", "head"]


def test_stages_are_bounds_of_names() -> None:
    assert partition(NAMES, 3, method="type:transformer", count_parameters=lambda index: 0) == [0, 3, 5, 9]
    weights = [40, 10, 10, 10, 10, 10, 10, 1, 40]
    assert partition(NAMES, 3, method="parameters", count_parameters=weights.__getitem__) == balanced_bounds(weights, 3)


@pytest.mark.parametrize(
    ("stages", "method", "message"),
    [
        (10, "uniform", '"pipe_parallel_size" is 10, but the model has only 9 layers'),
        (2, "type:mamba", "matches no layer: the layers are called embedding, head, norm, transformer"),
        (2, "best", '"pipe_partition_method" is "best": choose one of'),
    ],
)
def test_impossible_partitions_are_refused(stages: int, method: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        partition(NAMES, stages, method=method, count_parameters=lambda index: 1)


@pytest.mark.parametrize("method", ["type:transformer|mlp", "uniform", "parameters"])
@pytest.mark.parametrize("stages", [2, 3, 5])
def test_planned_stages_are_those_of_the_engine(method: str, stages: int) -> None:
    args = build_args(num_layers=7, pipe_partition_method=method)
    specs = build_layer_specs(args, vocab_size=59, padded_vocab_size=64)
    bounds = partition_layers(specs, stages, method=method, count_parameters=parameter_counter(BuildContext()))
    built = [[spec.number for spec in specs[begin:end]] for begin, end in itertools.pairwise(bounds)]
    planned = stage_layers(args, Layout(pipeline=stages), 64)
    assert [[layer.number for layer in layers] for layers in planned] == built
