"""Whether what the files of an optimizer's state hold belongs together and is all there: no run goes on with a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megatron.checkpointing.state_file import Shapes
from megatron.conversion.legacy.optimizer.order import Slots
from megatron.conversion.legacy.optimizer.ranks import RankState
from megatron.conversion.legacy.optimizer.zero_files import WEIGHTS_ALONE
from megatron.errors import CheckpointError
from megatron.foreign import shortened


def check_same(directory: Path, ranks: Sequence[RankState]) -> None:
    """All ranks must have made as many steps, and keep the same of every parameter. Raises CheckpointError."""
    steps = sorted({step for rank in ranks for step in rank.steps})
    if len(steps) > 1:
        raise CheckpointError(
            f"the files of the optimizer's state in {directory} were written after different numbers of steps, {steps}. Copy all files anew. "
            f"{WEIGHTS_ALONE}"
        )
    kinds = sorted({tuple(sorted(kinds)) for rank in ranks for kinds in rank.kinds})
    if len(kinds) > 1:
        held = " and of others ".join(", ".join(kind) or "nothing" for kind in kinds)
        raise CheckpointError(
            f"the optimizer's state in {directory} is not the same for all parameters: of some {held}. {WEIGHTS_ALONE}"
        )


def check_lengths(directory: Path, rank: RankState, slots: Slots) -> None:
    """Every vector must reach to the end of its last parameter. Raises CheckpointError."""
    lengths = [{kind: vector.length for kind, vector in group.items()} for group in rank.groups]
    for name, slot in slots.items():
        of_group = lengths[slot.group] if slot.group < len(lengths) else {}
        kind, length = min(of_group.items(), key=lambda pair: pair[1], default=("any kind", 0))
        if slot.end > length:
            raise CheckpointError(
                f"the optimizer's state in {directory} is not whole: of {kind} there are {length} values in the group of {name}, which ends at "
                f"{slot.end}. Copy all files. {WEIGHTS_ALONE}"
            )


def check_all_parameters(directory: Path, parameters: Sequence[Shapes], slots: Sequence[Slots]) -> None:
    """Every parameter of the model must be in the vectors of some stage, in its shape. Raises CheckpointError.

    parameters: of each tensor-parallel rank; slots: of all model-parallel ranks.
    """
    for tensor_rank, wanted in enumerate(parameters):
        stages = slots[tensor_rank :: len(parameters)]
        found = {name: slot.shape for of_rank in stages for name, slot in of_rank.items()}
        missing = [name for name, shape in wanted.items() if found.get(name) != shape]
        if missing:
            raise CheckpointError(
                f"the optimizer's state in {directory} is not whole: it has none of {shortened(missing)}, or in another shape. Copy all files. "
                f"{WEIGHTS_ALONE}"
            )
