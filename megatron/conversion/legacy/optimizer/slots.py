"""Where every parameter lies in the vectors of every model-parallel rank: as the files say, or as GPT-NeoX lays them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.checkpointing.state_file import Shapes
from megatron.conversion.legacy.layer_files import LayerFiles
from megatron.conversion.legacy.names import is_parameter
from megatron.conversion.legacy.optimizer.order import Slots, derived_slots, written_slots
from megatron.conversion.legacy.optimizer.ranks import RankState
from megatron.conversion.legacy.optimizer.zero_files import WEIGHTS_ALONE
from megatron.errors import CheckpointError


@dataclass(frozen=True)
class AllSlots:
    """of_ranks: of every model-parallel rank; are_written: whether the files say so, and it does not only follow from rules."""

    of_ranks: list[Slots]
    are_written: bool


def find_slots(directory: Path, ranks: Sequence[RankState], parameters: Sequence[Shapes]) -> AllSlots:
    """parameters: of each tensor-parallel rank. Raises CheckpointError when the vectors do not have the lengths that these have by the rules."""
    written = [rank.engine.get("param_shapes") for rank in ranks]
    if all(isinstance(groups, list) for groups in written):
        return AllSlots([_written(rank) for rank in ranks], are_written=True)
    slots: list[Slots] = [{} for _ in ranks]
    width = len(parameters)
    for tensor_rank, shapes in enumerate(parameters):
        stages = ranks[tensor_rank::width]
        lengths = [[next(iter(group.values())).length for group in rank.groups] for rank in stages]
        try:
            slots[tensor_rank::width] = derived_slots(shapes, lengths)
        except ValueError as error:
            raise CheckpointError(
                f"the optimizer's state in {directory} does not say which of its values is of which parameter, and the order in which "
                f"GPT-NeoX has them does not fit: {error}. {WEIGHTS_ALONE}"
            ) from error
    return AllSlots(slots, are_written=False)


def _written(rank: RankState) -> Slots:
    return written_slots(rank.engine["param_shapes"], rank.saved.get("param_alignment_paddings"))


def parameters_of_ranks(files: LayerFiles) -> list[Shapes]:
    """Those in the files of each tensor-parallel rank, in the order of the model."""
    of_ranks: list[Shapes] = [{} for _ in range(files.layout.ranks)]
    for layer in files.layers():
        for shapes, tensors in zip(of_ranks, files.ranks(layer), strict=True):
            shapes |= {f"{layer}.{name}": tuple(tensor.shape) for name, tensor in tensors.items() if is_parameter(name)}
    return of_ranks
