"""How far two runs have drifted apart, by their checkpoints, whatever layout wrote them. `python -m megatron.checkpointing.compare A B OUT`

Every iteration that both have saved is compared, and every tensor in it: weights and optimizer moments, whole, one of each checkpoint
in memory at a time.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from megatron.atomic import atomic_file
from megatron.checkpointing.inspecting.blocks import blocks
from megatron.checkpointing.inspecting.tensors import TensorReader
from megatron.checkpointing.layout import list_checkpoints
from megatron.checkpointing.manifest import check_files
from megatron.checkpointing.names import kind_of
from megatron.checkpointing.state_file import read_state
from megatron.launcher.worker import run_worker

FLOOR = 0.1
"""A deviation is relative to the tensor's largest value, or to this share of the largest of its kind: some tensors hold rounding noise alone,
such as the moments of the biases of keys, which attention does not depend on."""

Deviations = dict[str, float]
"""The relative deviation of every tensor by name; infinite where it is not finite, or one of the two has no such tensor."""


def compare_runs(first: Path, second: Path) -> dict[int, Deviations]:
    """The deviations of two directories of checkpoints by iteration. Raises CheckpointError for a damaged one."""
    ours, theirs = ({found.iteration: found.path for found in list_checkpoints(folder)} for folder in (first, second))
    return {iteration: compare(ours[iteration], theirs[iteration]) for iteration in sorted(ours.keys() & theirs.keys())}


def compare(first: Path, second: Path) -> Deviations:
    """The deviation of every tensor of the first checkpoint from the second's, in the order of names."""
    return deviations(_verified(first), _verified(second))


def deviations(ours: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Deviations:
    """The largest difference of each tensor, relative to the largest value that is expected of it (see FLOOR). Each is looked up once."""
    differences: dict[str, float] = {}
    largest: dict[str, float] = {}
    for name in sorted(ours.keys() | expected.keys()):
        mine, known = ours.get(name), expected.get(name)
        differences[name] = math.inf
        if known is not None:
            largest[name] = _largest(block for (block,) in blocks(known))
        if mine is not None and known is not None and mine.shape == known.shape:
            differences[name] = _largest(a - b for a, b in blocks(mine, known))
        del mine, known  # before the next are read
    return relative_deviations(differences, largest)


def relative_deviations(differences: Mapping[str, float], largest: Mapping[str, float]) -> Deviations:
    """Differences of tensors, by name, relative to the largest values that are expected of them (see FLOOR); of what is not expected, to those of its kind."""
    largest_of_kind: dict[str, float] = {}
    for name, value in largest.items():
        largest_of_kind[kind_of(name)] = max(largest_of_kind.get(kind_of(name), 0.0), value)
    return {
        name: _relative(difference, max(largest.get(name, 0.0), FLOOR * largest_of_kind.get(kind_of(name), 0.0)))
        for name, difference in differences.items()
    }


def _verified(checkpoint: Path) -> TensorReader:
    """The tensors of a checkpoint, whose bytes are those that were written."""
    check_files(checkpoint, "full")
    read_state(checkpoint)
    return TensorReader(checkpoint)


def _largest(values: Iterable[Tensor]) -> float:
    """The largest absolute value, 0 of none; NaN where there is one."""
    found = [block.abs().max() for block in values if block.numel()]
    return float(torch.stack(found).max()) if found else 0.0


def _relative(difference: float, scale: float) -> float:
    if not math.isfinite(difference) or not math.isfinite(scale):
        return math.inf
    return difference / scale if difference else 0.0


def main() -> None:
    """Compare two directories of checkpoints and write `{iteration: {tensor: deviation}}` as JSON."""
    parser = argparse.ArgumentParser("python -m megatron.checkpointing.compare", description="Compare checkpoints.")
    for name in ("first", "second", "output"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    found = compare_runs(options.first, options.second)
    with atomic_file(options.output) as file:
        file.write(json.dumps(found).encode())


if __name__ == "__main__":
    run_worker(main)
