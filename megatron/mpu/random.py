"""Random numbers without state to save: what dropout draws is a function of (seed, iteration, place in the grid) alone.

Every step begins with `seed_step`, so a resumed run draws what the uninterrupted one would have, and nothing about random numbers is in
a checkpoint. Tensor-parallel ranks draw the *same* numbers where they hold the same activations, and *different* ones inside
`tensor_parallel_randomness`, where each holds its own part (attention heads, slices of the sequence).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from megatron.mpu.groups import Group
from megatron.mpu.shard import stable_seed
from megatron.mpu.topology import Coordinates


def seed_step(seed: int, iteration: int, coordinates: Coordinates) -> None:
    """Reseed this process's default generators for one step: the same on all tensor ranks, different on every other axis."""
    _seed_generators(stable_seed("step", seed, iteration, coordinates.data, coordinates.pipe))


@contextmanager
def tensor_parallel_randomness(group: Group) -> Iterator[None]:
    """Draw different random numbers on every rank of the group; afterwards the ranks agree again.

    The seed inside is one draw from the default CPU generator, mixed with the rank. Whatever restores that generator, as activation
    checkpointing does before it computes anew, hence restores these numbers too. The identity for a group of one.
    """
    if group.size == 1:
        yield
        return
    draw = torch.randint(2**62, (), dtype=torch.int64, device="cpu").item()
    states = [generator.get_state() for generator in _default_generators()]
    _seed_generators(stable_seed("tensor rank", draw, group.rank))
    try:
        yield
    finally:
        for generator, state in zip(_default_generators(), states, strict=True):
            generator.set_state(state)


def _default_generators() -> list[torch.Generator]:
    """The CPU's generator, and the current GPU's once this process uses one."""
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
    return generators


def _seed_generators(seed: int) -> None:
    for generator in _default_generators():
        generator.manual_seed(seed)
