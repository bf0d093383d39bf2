"""How far two runs have drifted apart, by their checkpoints, whatever layout wrote them. `python -m megatron.checkpointing.compare A B OUT`

Every iteration that both have saved is compared, and every tensor in it: weights and optimizer moments, whole.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from megatron.atomic import atomic_file
from megatron.checkpointing.layout import list_checkpoints
from megatron.checkpointing.load import check_checkpoint, read_tensors
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.state_file import read_state
from megatron.engine.protocol import FullTensor, Piece
from megatron.launcher.worker import run_worker
from megatron.mpu.groups import SINGLE

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
    return deviations(read_full(first), read_full(second))


def read_full(checkpoint: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, whole, by its layout-free name, its bytes checked against the manifest."""
    tensors = {name: torch.empty(shape) for name, shape in read_state(checkpoint).shapes.items()}
    check_checkpoint(checkpoint, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, verification="full")
    whole = {
        name: FullTensor(tuple(tensor.shape), (Piece((0,) * tensor.dim(), tensor),)) for name, tensor in tensors.items()
    }
    read_tensors(checkpoint, whole, Ranks(SINGLE, doing=f"reading {checkpoint}"))
    return tensors


def deviations(ours: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Deviations:
    """The largest difference of each tensor, relative to the largest value that is expected of it (see FLOOR)."""
    largest: dict[str, float] = {}
    for name, tensor in expected.items():
        largest[kind_of(name)] = max(largest.get(kind_of(name), 0.0), _largest(tensor))
    found = {}
    for name in sorted(ours.keys() | expected.keys()):
        mine, known = ours.get(name), expected.get(name)
        if mine is None or known is None or mine.shape != known.shape:
            found[name] = math.inf
        else:
            found[name] = _relative(_largest(mine - known), max(_largest(known), FLOOR * largest[kind_of(name)]))
    return found


def kind_of(name: str) -> str:
    """What a tensor is of its parameter: "weight", "exp_avg", ..."""
    return name.rpartition("/")[2]


def _largest(tensor: Tensor) -> float:
    """The largest absolute value, 0 of none; NaN where there is one."""
    return float(tensor.abs().max()) if tensor.numel() else 0.0


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
