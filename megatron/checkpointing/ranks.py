"""Steps that all ranks take together: when one of them fails, all of them know it and raise the same sentence."""

from __future__ import annotations

import contextlib
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from megatron.checkpointing.errors import LostRank
from megatron.errors import CheckpointError, DataError, NeoXError
from megatron.mpu.groups import Group

T = TypeVar("T")

# A world of one is legal. Said once and for all, since filters belong to the process, and saving may have a thread of its own.
warnings.filterwarnings("ignore", message=".*torch.distributed is disabled")


@dataclass(frozen=True)
class Failure:
    """What went wrong on a rank, in a form that can be sent to the others. ours: a whole sentence of one of our errors."""

    sentence: str
    kind: type[NeoXError] = CheckpointError
    ours: bool = True


@dataclass(frozen=True)
class Ranks:
    """The ranks of `group` while they are `doing` something ("saving checkpoints/global_step10")."""

    group: Group
    doing: str

    def first(self, action: Callable[[], T]) -> T:
        """Run `action` on the first rank; its (picklable) result on every rank, or its failure: a DataError as that, any other as a CheckpointError."""
        outcome: T | Failure | None = None
        error: Exception | None = None
        if self.group.rank == 0:
            outcome, error = _attempt(action)
        return cast("T", self._result(self._broadcast(outcome), error))

    def every(self, action: Callable[[], T]) -> list[T]:
        """Run `action` on every rank. The first rank gets all (picklable) results in rank order, the others an empty list.

        Raises CheckpointError, or DataError, on every rank when any has failed.
        """
        mine, error = _attempt(action)
        outcomes = self._gather(mine)
        failures = {rank: outcome for rank, outcome in enumerate(outcomes) if isinstance(outcome, Failure)}
        self._result(self._broadcast(self._merge(failures) if failures else None), error)
        return cast("list[T]", outcomes)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around collectives: a failure of torch.distributed.checkpoint, or of a peer, becomes a CheckpointError."""
        try:
            yield
        except CheckpointException as error:
            self._result(self._merge({rank: describe(cause) for rank, (cause, _) in error.failures.items()}), error)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what gloo and NCCL raise when a peer is gone
            raise LostRank(
                f"{self.doing} failed: another rank has died or does not answer ({_first_line(error)})"
            ) from error

    def _result(self, outcome: Any, error: BaseException | None) -> Any:
        if isinstance(outcome, Failure):
            raise outcome.kind(
                outcome.sentence if outcome.ours else f"{self.doing} failed: {outcome.sentence}"
            ) from error
        return outcome

    def _merge(self, failures: Mapping[int, Failure]) -> Failure:
        """The failures by rank as one, each sentence said once."""
        ranks: dict[Failure, list[int]] = {}
        for rank, failure in failures.items():
            ranks.setdefault(failure, []).append(rank)
        if len(ranks) == 1 and (self.group.size == 1 or len(failures) == self.group.size):
            return next(iter(ranks))
        sentence = "; ".join(f"{_rank_list(who)}: {failure.sentence}" for failure, who in ranks.items())
        return Failure(sentence, next(iter(ranks)).kind, ours=False)

    def _broadcast(self, value: Any) -> Any:
        if self.group.handle is None:
            return value
        holder = [value]
        with self.together():
            dist.broadcast_object_list(holder, src=self.group.ranks[0], group=self.group.handle)
        return holder[0]

    def _gather(self, value: Any) -> list[Any]:
        if self.group.handle is None:
            return [value]
        values: list[Any] | None = [None] * self.group.size if self.group.rank == 0 else None
        with self.together():
            dist.gather_object(value, values, dst=self.group.ranks[0], group=self.group.handle)
        return values or []


def describe(error: BaseException) -> Failure:
    """An exception as a sentence: our own errors as they are, those of the system with the host they happened on."""
    if isinstance(error, (CheckpointError, DataError)):
        return Failure(str(error), type(error))
    if isinstance(error, NeoXError):  # a store that nobody knows, a package that is not installed
        return Failure(str(error))
    name = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return Failure(f"{name}{_first_line(error)} (on host {socket.gethostname()})", ours=False)


def _attempt(action: Callable[[], T]) -> tuple[T | Failure, Exception | None]:
    try:
        return action(), None
    except Exception as error:
        return describe(error), error


def _rank_list(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
