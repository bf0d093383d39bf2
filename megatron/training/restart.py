"""A run whose ranks were started again after a crash or on other machines (`max_restarts`) goes on from what it has saved itself, whatever `load` says.

Else a run that began from another one's weights (`finetune`, or `load` of another directory or iteration) would begin there again.
"""

from __future__ import annotations

import time
from datetime import datetime

from megatron.checkpointing.layout import find_checkpoint
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.state_file import read_state
from megatron.environment import job_id, job_start, restart_count
from megatron.errors import CheckpointError
from megatron.mpu.groups import Group
from megatron.neox_arguments import NeoXArgs


def going_on(args: NeoXArgs, group: Group) -> NeoXArgs:
    """The arguments that this attempt of the job goes by (all ranks of `group` call this)."""
    restarts = restart_count()
    if not restarts or not args.save:
        return args
    directory = args.save
    ranks = Ranks(group, doing=f"looking for checkpoints in {directory}")
    has_saved = ranks.first(lambda: saved_by_this_job(directory))
    return args_of_attempt(args, restarts=restarts, has_saved=has_saved)


def args_of_attempt(args: NeoXArgs, *, restarts: int, has_saved: bool) -> NeoXArgs:
    """As configured for the first attempt, and as long as the job has saved nothing; from then on, to go on from `save`."""
    if not restarts or not has_saved:
        return args
    return args.model_copy(update={"load": args.save, "iteration": None, "finetune": False, "no_load_optim": False})


def minutes_of_job() -> float:
    """How long the job has been running, its start-up and earlier attempts included."""
    return (time.time() - job_start()) / 60


def saved_by_this_job(directory: str) -> bool:
    """Whether the checkpoint that loading would begin with was saved by this job, in whatever attempt and by whatever machine.

    A job without a name (`torchrun train.py`) knows what it has saved by the time, which takes clocks that agree.
    """
    try:
        content = read_state(find_checkpoint(directory)).content
    except CheckpointError:  # there is none, or none that is whole
        return False
    if job := job_id():
        return content.get("job") == job
    return datetime.fromisoformat(str(content["saved_at"])).timestamp() >= int(job_start())
