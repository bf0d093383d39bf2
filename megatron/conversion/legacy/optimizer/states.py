"""The optimizer's state of a checkpoint of GPT-NeoX: fp32 weights, moments and counters, whatever ranks hold which parts of them.

`open_optimizer` reads no tensor; `shards` gives those of one parameter, as the tensor-parallel ranks had them, to be merged like its weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from megatron.checkpointing.names import WEIGHT
from megatron.conversion.legacy.layer_files import LayerFiles
from megatron.conversion.legacy.optimizer.counters import Scalars, optimizer_scalars
from megatron.conversion.legacy.optimizer.ranks import RankState, read_ranks
from megatron.conversion.legacy.optimizer.slots import AllSlots, find_slots, parameters_of_ranks
from megatron.conversion.legacy.optimizer.whole import check_all_parameters, check_lengths, check_same
from megatron.conversion.legacy.optimizer.zero_files import WEIGHTS_ALONE
from megatron.errors import CheckpointError


class OptimizerStates:
    """kinds: what there is of every parameter ("weight" in fp32, where the model has another precision, "exp_avg", ...); scalars: as
    `Engine.load_scalars` takes them."""

    def __init__(self, files: LayerFiles, ranks: Sequence[RankState], slots: AllSlots) -> None:
        """ranks: the model-parallel ones, all those of a pipeline stage before the next; slots: theirs."""
        self._files = files
        self._ranks = list(zip(ranks, slots.of_ranks, strict=True))
        self.kinds: list[str] = sorted(frozenset[str]().union(*ranks[0].kinds))
        self.scalars: Scalars = optimizer_scalars(ranks[0].saved, ranks[0].steps, ranks[0].engine)
        self._is_certain = slots.are_written

    def shards(self, name: str, kind: str) -> list[Tensor]:
        """What each tensor rank had of a tensor of theirs ("2.mlp.w1.weight"); views of files, where it is not spread over several.

        Raises CheckpointError when it proves to be of another parameter.
        """
        shards = [self._shard(rank, name, kind) for rank in range(self._files.layout.ranks)]
        if kind == WEIGHT and not self._is_certain:
            for shard, rounded in zip(shards, self._files.shards(name), strict=True):
                if not torch.equal(shard.to(rounded.dtype), rounded):
                    raise self._error(f"its fp32 weights of {name}, found by their place, are not those of the model")
        return shards

    def _shard(self, tensor_rank: int, parameter: str, kind: str) -> Tensor:
        # What a tied head has on the last stage is the same as what the embedding has on the first.
        stages = self._ranks[tensor_rank :: self._files.layout.ranks]
        state, slot = next((state, slots[parameter]) for state, slots in stages if parameter in slots)
        try:
            return state.groups[slot.group][kind].take(slot.start, slot.shape)
        except ValueError as error:
            raise self._error(f"{kind} of {parameter} has {error}") from error

    def _error(self, reason: str) -> CheckpointError:
        return CheckpointError(
            f"the optimizer's state in {self._files.layout.directory} cannot be taken over: {reason}. {WEIGHTS_ALONE}"
        )


def open_optimizer(files: LayerFiles, *, trusted: bool = False) -> OptimizerStates | None:
    """What was saved with a checkpoint, None where nothing was. Raises CheckpointError when it is not whole, or of no known form."""
    ranks = read_ranks(files.layout, trusted=trusted)
    if not ranks:
        return None
    directory, parameters = files.layout.directory, parameters_of_ranks(files)
    check_same(directory, ranks)
    slots = find_slots(directory, ranks, parameters)
    for rank, of_rank in zip(ranks, slots.of_ranks, strict=True):
        check_lengths(directory, rank, of_rank)
    check_all_parameters(directory, parameters, slots.of_ranks)
    return OptimizerStates(files, ranks, slots)
