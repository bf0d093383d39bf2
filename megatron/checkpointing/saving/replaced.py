"""What a run would replace where it saves, said before it trains: later checkpoints of an earlier run, and those of GPT-NeoX never."""

from __future__ import annotations

from pathlib import Path

from megatron.checkpointing.layout import existing_checkpoints
from megatron.checkpointing.places import place
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.remote.reach import asking
from megatron.errors import CheckpointError
from megatron.foreign import is_step_of_neox, shortened
from megatron.log import get_logger
from megatron.mpu.groups import Group

logger = get_logger(__name__)


def check_what_is_replaced(directory: str, *, iteration: int, began_from: Path | None, group: Group) -> None:
    """Look for checkpoints that a run replaces which saves in `directory` and begins at `iteration` (all ranks of `group` call this).

    Those of a run of ours are a warning, unless this run goes on from one of them (`began_from`): then it was chosen. Raises CheckpointError on every rank when they are GPT-NeoX's, which no later start could do without.
    """
    ranks = Ranks(group, doing=f"looking for checkpoints in {directory}")
    names = ranks.first(lambda: _later(directory, iteration))
    is_chosen = began_from is not None and began_from.parent == place(directory)
    if names and not is_chosen and group.rank == 0:
        logger.warning(
            f"{directory} holds checkpoints of later iterations than {iteration}, where this run begins: {shortened(names)}. It replaces them when it "
            f"comes to these iterations; to go on from them, stop it and set load: {directory}, finetune: false and no iteration"
        )


def _later(directory: str, iteration: int) -> list[str]:
    """The names of ours."""
    with asking(place(directory)):
        later = [found.path for found in existing_checkpoints(place(directory)) if found.iteration > iteration]
        of_neox = [path.name for path in later if is_step_of_neox(path)]
    if of_neox:
        raise CheckpointError(
            f"{directory}, where this run saves, holds checkpoints of GPT-NeoX of later iterations than {iteration}, where the run begins "
            f"({shortened(of_neox)}): it would come to have others under these names; give another directory in save"
        )
    return [path.name for path in later]
