"""Which layers each pipeline stage runs: contiguous, balanced by the chosen weight of the layers.

Methods of `pipe_partition_method`: `uniform` (every layer weighs the same), `parameters` (its number of parameters), and
`type:REGEX` (1 for layers whose name matches, case-insensitively, 0 for the rest).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

from megatron.errors import ConfigError


def partition(names: Sequence[str], stages: int, *, method: str, count_parameters: Callable[[int], int]) -> list[int]:
    """Bounds b of the stages: stage i runs layers [b[i], b[i + 1]) of those called `names`.

    count_parameters: of the layer with this index, only called for `parameters`. Raises ConfigError for an unknown method, a pattern
    that matches nothing, or more stages than layers.
    """
    if stages > len(names):
        raise ConfigError(
            [
                f'"pipe_parallel_size" is {stages}, but the model has only {len(names)} layers to share out: use at most {len(names)}'
            ]
        )
    return balanced_bounds(_weights(names, method, count_parameters), stages)


def balanced_bounds(weights: Sequence[int], stages: int) -> list[int]:
    """Contiguous, non-empty stages with the least heaviest stage, and among those the most even ones.

    Layers of weight 0 between two stages go to the later one.
    """
    return list(_best_bounds(tuple(weights), stages))


@lru_cache(maxsize=1024)
def _best_bounds(weights: tuple[int, ...], stages: int) -> tuple[int, ...]:
    sums = [0, *accumulate(weights)]
    limit = _cheapest(sums, stages, lambda so_far, load: max(so_far, load))[0]
    unreachable = sums[-1] ** 2 * stages + 1

    def even(so_far: int, load: int) -> int:
        return so_far + (load * load if load <= limit else unreachable)

    return _cheapest(sums, stages, even)[1]


def _weights(names: Sequence[str], method: str, count_parameters: Callable[[int], int]) -> list[int]:
    kind, _, pattern = method.partition(":")
    if kind == "uniform":
        return [1] * len(names)
    if kind == "parameters":
        return [count_parameters(index) for index in range(len(names))]
    if kind != "type":
        raise ConfigError([f'"pipe_partition_method" is "{method}": choose one of type:REGEX, uniform, parameters'])
    weights = [int(bool(re.search(pattern, name, re.IGNORECASE))) for name in names]
    if not any(weights):
        known = ", ".join(sorted(set(names)))
        raise ConfigError(
            [f'"pipe_partition_method" is "{method}", which matches no layer: the layers are called {known}']
        )
    return weights


def _cheapest(sums: Sequence[int], stages: int, cost: Callable[[int, int], int]) -> tuple[int, tuple[int, ...]]:
    """Dynamic programming over (stages used, layers used): the least cost and its bounds. `cost` is monotone in its arguments."""
    layers = len(sums) - 1
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, (0,))}
    for stage in range(1, stages + 1):
        longer: dict[int, tuple[int, tuple[int, ...]]] = {}
        for end in range(stage, layers - (stages - stage) + 1):
            options = ((cost(best[begin][0], sums[end] - sums[begin]), begin) for begin in best if begin < end)
            value, begin = min(options)
            longer[end] = (value, (*best[begin][1], end))
        best = longer
    return best[layers]
