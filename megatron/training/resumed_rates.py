"""Whose learning rates a run goes on with: a change of them from one start to the next is an error until it is said to be meant.

As in Megatron, `override_lr_scheduler` takes those of the config and `use_checkpoint_lr_scheduler` those of the checkpoint. Learning
rates are functions of the iteration here, so what is compared are their values in the steps to come: a longer run with a constant
rate, say, is no change.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.settings import SETTINGS, read_settings
from megatron.errors import CheckpointError
from megatron.mpu.groups import Group
from megatron.neox_arguments import NeoXArgs
from megatron.optim.lr_schedules import LearningRates

COMPARED = 4096
"""Steps that are compared at most, evenly spread: the curves have few corners, and where two differ they do so over a stretch."""


def settle_learning_rates(args: NeoXArgs, checkpoint: Path, group: Group, *, iteration: int) -> NeoXArgs:
    """The arguments to go on with from a checkpoint of `iteration`, after the learning rates have been compared (collective).

    Raises CheckpointError when they differ and no key says which are meant. A checkpoint that does not say what its run was configured
    to be cannot be compared, and is an error only where its learning rates are asked for.
    """
    if args.override_lr_scheduler or args.no_load_optim:
        return args
    saved = Ranks(group, doing=f"reading {checkpoint / SETTINGS}").first(
        lambda: _learning_rates_of(checkpoint, needed=args.use_checkpoint_lr_scheduler)
    )
    if saved is None:
        return args
    if args.use_checkpoint_lr_scheduler:
        return args.with_learning_rates(**asdict(saved))
    ours = LearningRates.of(args)
    assert args.train_iters is not None, "resolve_epochs comes first"
    if differ(saved, ours, range(iteration, args.train_iters)):
        raise CheckpointError(_sentence(checkpoint, saved, ours, args))
    return args


def differ(first: LearningRates, second: LearningRates, steps: range) -> bool:
    """Whether two functions give any of these steps (by the iterations completed before them) another learning rate."""
    if first == second:
        return False
    corners = {
        math.floor(at) + offset
        for rates in (first, second)
        for at in (rates.warmup * rates.lr_decay_iters, rates.lr_decay_iters)
        for offset in (-1, 0, 1)
    }
    compared = {*steps[:: max(1, len(steps) // COMPARED)], *(corner for corner in corners if corner in steps)}
    return any(not math.isclose(first.after(step), second.after(step), rel_tol=1e-9) for step in compared)


def _learning_rates_of(checkpoint: Path, *, needed: bool) -> LearningRates | None:
    try:
        return LearningRates.of(read_settings(checkpoint))
    except CheckpointError as error:
        if needed:
            raise CheckpointError(
                f"use_checkpoint_lr_scheduler asks for the learning rates of {checkpoint}, but {error}"
            ) from error
        return None


def _sentence(checkpoint: Path, saved: LearningRates, ours: LearningRates, args: NeoXArgs) -> str:
    before, now = asdict(saved), asdict(ours)
    follows = (
        {} if args.lr_decay_iters or args.lr_decay_fraction else {"lr_decay_iters": " (train_iters, as none is given)"}
    )
    changed = [
        f"{key} was {before[key]} and is {now[key]}{follows.get(key, '')}" for key in before if before[key] != now[key]
    ]
    return (
        f"{checkpoint} was trained with other learning rates than this run would go on with: {', '.join(changed)}. "
        "To go on with those of this config, set override_lr_scheduler: true; with those of the checkpoint, "
        "use_checkpoint_lr_scheduler: true"
    )
