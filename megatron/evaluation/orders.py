"""One rank directs and all follow: what rank 0 decides on its own reaches the others as orders, and what they find comes back to it.

The others wait for as long as rank 0 is busy elsewhere. However it ends, all ranks end together and with the same sentence; only a rank
that breaks off in the middle of an order leaves alone, as those it computes with cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from megatron.errors import NeoXError
from megatron.log import get_logger
from megatron.mpu.broadcast import broadcast_object
from megatron.mpu.collectives import barrier
from megatron.mpu.groups import Group, build_host_group

T = TypeVar("T")

TIMEOUT = timedelta(days=1)
"""How long a rank waits for the next order: rank 0 may read large data sets. If that dies its connections close, and all know at once."""

logger = get_logger(__name__)


@dataclass(frozen=True)
class _Order:
    content: Any


@dataclass(frozen=True)
class _Failure:
    """An error of ours, as it travels."""

    sentence: str


class Crew:
    """The ranks of `world`. follow: what each of them does with an order, which is picklable, as is what it returns."""

    def __init__(self, world: Group, follow: Callable[[Any], Any]) -> None:
        self._group = world
        self._world, self._follow = world, follow
        self._is_following = False

    def run(self, work: Callable[[], T]) -> T | None:
        """What `work` returns on rank 0, where alone it runs while the others follow the orders it gives; None on those (collective).

        Raises NeoXError on every rank when it fails: its own sentence, or one that names the error, which the log of rank 0 tells whole.
        A rank that fails at an order, with any other error than ours, raises that at once; the connections of the others then break.
        """
        self._group = build_host_group(self._world, timeout=TIMEOUT)
        result = self._lead(work) if self._group.rank == 0 else self._serve()
        if self._group.handle is not None:
            barrier(self._group)
            dist.destroy_process_group(self._group.handle)
        if isinstance(result, NeoXError):
            raise result
        return result

    def give(self, order: Any) -> list[Any]:
        """Have every rank follow an order; what they return, in rank order. For rank 0, inside `run`.

        Raises NeoXError when a rank does. It must do so together with all that it computes with, and before that.
        """
        broadcast_object(_Order(order), self._group)
        told = self._obey(order)
        failure = next((each for each in told if isinstance(each, _Failure)), None)
        if failure is not None:
            raise NeoXError(failure.sentence)
        return told

    def _lead(self, work: Callable[[], T]) -> T | NeoXError:
        result: T | NeoXError
        try:
            result = work()
        except Exception as error:
            if self._is_following:
                raise
            result = _as_ours(error)
        broadcast_object(_Failure(str(result)) if isinstance(result, NeoXError) else None, self._group)
        return result

    def _serve(self) -> NeoXError | None:
        while isinstance(message := broadcast_object(None, self._group), _Order):
            self._obey(message.content)
        return NeoXError(message.sentence) if isinstance(message, _Failure) else None

    def _obey(self, order: Any) -> list[Any]:
        """Follow an order; what all ranks have returned or how they failed, on rank 0."""
        self._is_following = True
        found: Any
        try:
            found = self._follow(order)
        except NeoXError as error:
            found = _Failure(str(error))
        told = _gathered(found, self._group)
        self._is_following = False
        return told


def _as_ours(error: Exception) -> NeoXError:
    """An error as one with a sentence; the log has all there is to say of any other."""
    if isinstance(error, NeoXError):
        return error
    logger.error("the evaluation failed", exc_info=error)
    first_line = (str(error).strip() or "no reason given").splitlines()[0]
    ours = NeoXError(f"the evaluation failed: {type(error).__name__}: {first_line}")
    ours.__cause__ = error
    return ours


def _gathered(value: Any, group: Group) -> list[Any]:
    """Every rank's `value`, on the first rank; an empty list on the others."""
    if group.handle is None:
        return [value]
    values: list[Any] | None = [None] * group.size if group.rank == 0 else None
    dist.gather_object(value, values, dst=group.ranks[0], group=group.handle)
    return values or []
