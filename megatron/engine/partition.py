"""Which layers each pipeline stage runs: the arithmetic of `megatron.planning.model.partition` on layer specs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from megatron.model.sequential import build_layer
from megatron.model.spec import BuildContext, LayerSpec
from megatron.planning.model.partition import partition


def partition_layers(
    specs: Sequence[LayerSpec], stages: int, *, method: str, count_parameters: Callable[[LayerSpec], int]
) -> list[int]:
    """Bounds b of the stages: stage i runs `specs[b[i]:b[i+1]]`; `count_parameters` is only called for `parameters`.

    Raises ConfigError for an unknown method, a pattern that matches nothing, or more stages than layers.
    """
    names = [spec.name for spec in specs]
    return list(partition(names, stages, method=method, count_parameters=lambda index: count_parameters(specs[index])))


def parameter_counter(context: BuildContext) -> Callable[[LayerSpec], int]:
    """A function that counts the local parameters of a layer without allocating them."""
    empty = replace(context, device="meta")
    return lambda spec: sum(parameter.numel() for parameter in build_layer(spec, empty).parameters())
