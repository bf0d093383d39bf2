"""Flat memory for some parameters: their weights in the model's precision, their gradients in fp32, and the fp32 weights that are updated.

weights    | parameter | parameter |  | ... |    each begins at a multiple of `ALIGNMENT`; what lies between is 0 and stays so
gradients  |           |           |  | ... |    as long
share      one equal part a replica: what this rank counts in the gradient norm, and saves
master     the share at ZeRO 1, all of it at ZeRO 0; in an fp32 model it is the weights' own memory
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from megatron.engine.replicas import speaks_for
from megatron.engine.state import Fragment
from megatron.mpu.groups import Group
from megatron.planning.memory.flat import aligned, bucket_length


@dataclass(frozen=True, eq=False)
class Place:
    """A parameter, and where it begins in its bucket."""

    parameter: nn.Parameter
    start: int

    def of(self, flat: Tensor) -> Tensor:
        """The parameter's part of a tensor as long as the bucket, in the parameter's shape."""
        return flat.narrow(0, self.start, self.parameter.numel()).view(self.parameter.shape)


@dataclass(frozen=True)
class Run:
    """Elements [start, start + length) of a bucket."""

    start: int
    length: int

    def of(self, flat: Tensor) -> Tensor:
        """Them."""
        return flat.narrow(0, self.start, self.length)

    def within(self, other: Run) -> Run:
        """What lies in both; of length 0 when nothing does."""
        start = max(self.start, other.start)
        return Run(start, max(0, min(self.start + self.length, other.start + other.length) - start))


@dataclass(frozen=True)
class Bucket:
    """places: in the order in which gradients come; updated: where `master` lies. See the head of the file."""

    places: tuple[Place, ...]
    weights: Tensor
    gradients: Tensor
    master: Tensor
    share: Run
    updated: Run

    def fragments(self, *, for_saving: bool) -> Iterator[Fragment]:
        """What this rank updates, or, for saving, its share of it without copies."""
        for place in self.places:
            whole = Run(place.start, place.parameter.numel())
            own = whole.within(self.updated).within(self.share if for_saving else self.updated)
            if own.length and (speaks_for(place.parameter) or not for_saving):
                start = own.start - self.updated.start
                yield Fragment(place.parameter, own.start - place.start, self.master, start, own.length)

    def counted(self) -> list[Run]:
        """The runs of gradients that this rank counts in the norm: those of its share that no other rank counts."""
        runs: list[Run] = []
        for place in self.places:
            if speaks_for(place.parameter):
                run = Run(place.start, aligned(place.parameter.numel()))
                if runs and runs[-1].start + runs[-1].length == run.start:
                    run = Run(runs[-1].start, runs.pop().length + run.length)
                runs.append(run)
        own = [run.within(self.share) for run in runs]
        return [run for run in own if run.length]


def build_buckets(parameters: Sequence[nn.Parameter], *, limit: float, replicas: Group, divides: bool) -> list[Bucket]:
    """Move the parameters (of one precision and device) into buckets, the last parameter first, as gradients come.

    limit: elements after which a bucket is full; divides: whether each replica updates its share only (ZeRO 1).
    """
    return [_fill(batch, replicas, divides=divides) for batch in _batches(reversed(parameters), limit)]


def _batches(parameters: Iterable[nn.Parameter], limit: float) -> Iterator[list[nn.Parameter]]:
    batch: list[nn.Parameter] = []
    for parameter in parameters:
        batch.append(parameter)
        if sum(each.numel() for each in batch) >= limit:
            yield batch
            batch = []
    if batch:
        yield batch


@torch.no_grad()
def _fill(parameters: Sequence[nn.Parameter], replicas: Group, *, divides: bool) -> Bucket:
    first = parameters[0]
    length = bucket_length((each.numel() for each in parameters), replicas=replicas.size)
    weights = torch.zeros(length, dtype=first.dtype, device=first.device)
    gradients = torch.zeros(length, dtype=torch.float32, device=first.device)
    places, start = [], 0
    for parameter in parameters:
        assert (parameter.dtype, parameter.device) == (first.dtype, first.device)
        place = Place(parameter, start)
        place.of(weights).copy_(parameter)
        parameter.data = place.of(weights)
        places.append(place)
        start += aligned(parameter.numel())
    share = Run(replicas.rank * (length // replicas.size), length // replicas.size)
    updated = share if divides else Run(0, length)
    master = updated.of(weights).to(torch.float32).detach()
    master.grad = updated.of(gradients)
    return Bucket(tuple(places), weights, gradients, master, share, updated)
