"""Mistakes in saving and loading, each planted alone in the layout that goes on, and what must notice them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.planner import LoadPlan

from megatron.checkpointing.loading import load
from megatron.checkpointing.names import is_weight
from megatron.checkpointing.planners import PieceLoadPlanner, PieceSavePlanner
from megatron.engine import state, zero_state
from megatron.engine.base import BaseEngine
from megatron.engine.loss_scale import LossScale
from megatron.engine.protocol import FullTensor, Piece
from megatron.mpu.shard import ShardInfo
from megatron.training import step
from megatron.training.state import TrainState
from tests.distributed.matrix.mutation import replaced
from tests.distributed.resharding.cases import HALF, Pair, quick_pairs

Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Mistake:
    """plant: makes the context in which it is there; touches: whether it changes what a pair does; shows: kinds that must turn red."""

    name: str
    plant: Plant
    touches: Callable[[Pair], bool]
    shows: frozenset[str]

    def victim(self) -> Pair:
        """The quick pair that it touches and that is run most cheaply."""
        return min(filter(self.touches, quick_pairs()), key=_cost)

    def control(self) -> Pair | None:
        """A quick pair that it does not touch, like the victim; None where it touches all, and all are green without it."""
        victim = self.victim()
        others = (pair for pair in quick_pairs() if not self.touches(pair))
        return min(others, key=lambda pair: (_differences(pair, victim), _cost(pair)), default=None)


MISTAKES: dict[str, Mistake] = {}


def mistake(name: str, *, shows: str, touches: Callable[[Pair], bool] = lambda pair: True) -> Callable[[Plant], Plant]:
    """Enters a function that plants a mistake into MISTAKES. shows: kinds of deviation, by commas."""

    def enter(plant: Plant) -> Plant:
        MISTAKES[name] = Mistake(name, plant, touches, frozenset(shows.split(", ")))
        return plant

    return enter


def _cost(pair: Pair) -> tuple[Any, ...]:
    layout = pair.second
    return layout.grid.processes, layout.zero, layout.accumulation


def _differences(one: Pair, other: Pair) -> int:
    sizes = zip(vars(one.second.grid).values(), vars(other.second.grid).values(), strict=True)
    return (one.training != other.training) + sum(ours != theirs for ours, theirs in sizes)


@mistake("moments are not loaded", shows="losses, first moments, second moments, hash")
def _forgotten_moments() -> AbstractContextManager[Any]:
    right = load.read_tensors

    def wrong(checkpoint: Any, tensors: dict[str, FullTensor], *others: Any) -> None:
        right(checkpoint, {name: tensor for name, tensor in tensors.items() if is_weight(name)}, *others)

    return replaced((load, "read_tensors"), by=wrong)


@mistake("Adam counts its steps anew", shows="losses, weights, hash")
def _forgotten_count() -> AbstractContextManager[Any]:
    right = BaseEngine.load_scalars
    return replaced(
        (BaseEngine, "load_scalars"), by=lambda engine, scalars: right(engine, {**scalars, "optimizer_step": 0})
    )


@mistake(
    "tensor ranks take each other's shards", touches=lambda pair: pair.second.grid.tensor > 1, shows="losses, norms"
)
def _exchanged_shards() -> AbstractContextManager[Any]:
    """Alike in loading and saving, so that the way back hides it."""
    right = state.shard_pieces

    def wrong(info: ShardInfo, *others: Any) -> list[Piece]:
        return right(replace(info, rank=info.size - 1 - info.rank), *others)

    return replaced((state, "shard_pieces"), by=wrong)


@mistake(
    "one rank keeps what it had",
    touches=lambda pair: pair.second.grid.processes > 1,
    shows="losses, weights, first moments, second moments, hash",
)
def _stale_rank() -> AbstractContextManager[Any]:
    right = PieceLoadPlanner.create_local_plan

    def wrong(planner: PieceLoadPlanner) -> LoadPlan:
        return LoadPlan([]) if torch.distributed.get_rank() == 1 else right(planner)

    return replaced((PieceLoadPlanner, "create_local_plan"), by=wrong)


@mistake(
    "master weights are made from those of the model",
    touches=lambda pair: pair.training.precision in ("bfloat16", "fp16"),
    shows="hash",
)
def _rounded_masters() -> AbstractContextManager[Any]:
    right = BaseEngine.after_load

    def wrong(engine: BaseEngine) -> None:
        right(engine)
        for fragment in zero_state.fragments(engine._optimizer):
            values = fragment.flat.detach().narrow(0, fragment.flat_start, fragment.length)
            values.copy_(values.to(fragment.parameter.dtype))

    return replaced((BaseEngine, "after_load"), by=wrong)


@mistake(
    "only one copy of tied weights is filled",
    touches=lambda pair: pair.training.tied and pair.second.grid.pipe > 1,
    shows="losses, norms",
)
def _empty_copy() -> AbstractContextManager[Any]:
    """Tensors that are saved once are loaded once. Whether tensor ranks lack something then, too, is left aside."""
    right = zero_state.fragments

    def wrong(optimizer: Any) -> Any:
        return (each for each in right(optimizer) if not getattr(each.parameter, "ds_pipe_replicated", False))

    return replaced((zero_state, "fragments"), by=wrong)


@mistake("the model keeps the weights it began with", shows="losses, norms")
def _stale_model() -> AbstractContextManager[Any]:
    return replaced((BaseEngine, "after_load"), by=lambda engine: None)


@mistake("the loss scale begins anew", touches=lambda pair: pair.training.precision == "fp16", shows="counters, hash")
def _forgotten_scale() -> AbstractContextManager[Any]:
    return replaced((LossScale, "load"), by=lambda scale, state: None)


@mistake("the data begins anew", shows="losses, counters, hash")
def _forgotten_position() -> AbstractContextManager[Any]:
    right = TrainState.from_dict
    return replaced((TrainState, "from_dict"), by=lambda values: replace(right(values), consumed_samples=0))


@mistake("the learning rate begins anew", shows="losses, counters")
def _forgotten_rate() -> AbstractContextManager[Any]:
    right = step.learning_rate
    return replaced((step, "learning_rate"), by=lambda args, iteration: right(args, iteration - HALF))


@mistake("values are rounded on their way to disk", shows="hash")
def _rounded_values() -> AbstractContextManager[Any]:
    right = PieceSavePlanner.resolve_data

    def wrong(planner: PieceSavePlanner, item: Any) -> Tensor:
        values: Any = right(planner, item)
        return values.to(torch.bfloat16).to(values.dtype)

    return replaced((PieceSavePlanner, "resolve_data"), by=wrong)
