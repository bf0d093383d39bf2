"""Gradients on their way from autograd into the flat buffers, and from there to the other replicas.

A hook adds each gradient to its place in fp32 as soon as autograd has made it, and drops it: in half precision one of them is there at a
time. During the last backward pass of a step the sum of a bucket over the replicas begins when its last gradient has come, beside the
rest of the pass. Buckets go in the same order on every rank, whatever the order of the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from megatron.engine.native.bucket import Bucket, Place
from megatron.engine.native.exchange import Exchange, Sum

PIECE = 1 << 22
"""Elements that a CPU converts at a time before it adds them: its addition of two formats is slow."""


class Gradients:
    """Collects the gradients of a step in `buckets` and sums them over the replicas."""

    def __init__(self, buckets: Sequence[Bucket], exchange: Exchange, *, overlaps: bool) -> None:
        """overlaps: whether sums begin during the backward pass."""
        self._buckets = buckets
        self._exchange = exchange
        self._overlaps = overlaps
        self._missing: list[set[Place]] = []
        self._filled: set[Place] = set()
        self._sums: list[Sum] = []
        self._is_last = False
        for number, bucket in enumerate(buckets):
            for place in bucket.places:
                place.parameter.register_post_accumulate_grad_hook(self._taker(number, place))

    def begin(self) -> None:
        """A step begins: what the buffers hold is of the last one."""
        self._filled.clear()
        self._sums, self._is_last = [], False

    def expect_last(self) -> None:
        """The next backward pass is the last one of the step."""
        self._missing = [set(bucket.places) for bucket in self._buckets]
        self._is_last = True

    def finish(self) -> None:
        """All backward passes are over: return when every sum is there (on a GPU: when the current stream may use it)."""
        for bucket in self._buckets:
            for place in bucket.places:
                if place not in self._filled:
                    place.of(bucket.gradients).zero_()
        for bucket in self._buckets[len(self._sums) :]:
            self._sums.append(self._exchange.start_sum(bucket))
        for each in self._sums:
            each.wait()
        self._sums = []

    def _taker(self, number: int, place: Place) -> Callable[[Tensor], None]:
        target = place.of(self._buckets[number].gradients)

        def take(parameter: Tensor) -> None:
            gradient = parameter.grad
            assert gradient is not None
            if place in self._filled:
                _add(target, gradient)
            else:
                target.copy_(gradient)
                self._filled.add(place)
            parameter.grad = None
            if self._is_last:
                self._missing[number].remove(place)
                if self._overlaps:
                    self._start_complete()

        return take

    def _start_complete(self) -> None:
        """Begin the sums of the buckets that are complete, up to the first that is not."""
        while len(self._sums) < len(self._buckets) and not self._missing[len(self._sums)]:
            self._sums.append(self._exchange.start_sum(self._buckets[len(self._sums)]))


def _add(target: Tensor, gradient: Tensor) -> None:
    if gradient.dtype == target.dtype or target.device.type != "cpu":
        target.add_(gradient)
        return
    for part, new in zip(target.view(-1).split(PIECE), gradient.reshape(-1).split(PIECE), strict=True):
        part.add_(new.to(target.dtype))
