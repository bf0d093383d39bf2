"""How long a run is, and its learning rates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def needs_training_keys(args: Draft) -> bool:
    """Whether batch sizes and train_iters are needed: not while planning, nor for generate.py and eval.py."""
    return not args.planning and Path(args.user_script or "train.py").name not in ("generate.py", "eval.py")


def check_run_length(args: Draft) -> None:
    """Exactly one of train_iters and train_epochs."""
    keys = ("train_iters", "train_epochs")
    if args.train_iters is not None and args.train_epochs is not None:
        raise Conflict(keys, "these are two lengths of one run; keep one of them")
    if args.train_iters is None and args.train_epochs is None and needs_training_keys(args):
        raise Conflict(keys, "one of the two is needed; give train_iters, the number of optimizer steps")


def check_iteration_bound_optimizer(args: Draft) -> None:
    """1-bit Adam changes its method at an iteration counted from the end."""
    if args.optimizer_type == "onebitadam" and args.train_iters is None:
        raise Conflict(
            ("optimizer_type", "train_iters"), "OneBitAdam needs train_iters; give it instead of train_epochs"
        )


def check_learning_rates(args: Draft) -> None:
    """The floor of the learning rate lies below its peak."""
    if args.min_lr > args.lr:
        raise Conflict(
            ("min_lr", "lr"),
            f"the floor is above the peak; set min_lr to {args.lr / 10:g}, a tenth of the peak, or less",
        )


def check_decay_length(args: Draft) -> None:
    """The length of the decay is written one way."""
    if args.lr_decay_iters is not None and args.lr_decay_fraction is not None:
        raise Conflict(("lr_decay_iters", "lr_decay_fraction"), "these are two lengths of one decay; keep one of them")
