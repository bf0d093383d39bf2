"""When checkpoints are written, and that the one to load is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megatron.foreign import directories_of_checkpoints, is_free, what_is_there
from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_checkpoint_factor(args: Draft) -> None:
    """The factor suits the scale."""
    factor = args.checkpoint_factor
    if factor is None:
        return
    if args.checkpoint_scale == "log" and factor <= 1:
        raise Conflict(
            ("checkpoint_factor", "checkpoint_scale"),
            "on a log scale the factor must be above 1; set it to 2, for example",
        )
    if args.checkpoint_scale == "linear" and factor != int(factor):
        raise Conflict(
            ("checkpoint_factor", "checkpoint_scale"),
            f"on a linear scale this is a whole number of iterations; set it to {max(int(factor), 1)} or {int(factor) + 1}",
        )


def check_something_is_loaded(args: Draft) -> None:
    """What is said of the checkpoint to load is said of one."""
    for key in ("iteration", "use_checkpoint_lr_scheduler"):
        if args.load is None and getattr(args, key) not in (None, False):
            raise Conflict((key, "load"), f"no checkpoint is loaded; name the directory in load, or remove {key}")


def check_one_lr_schedule(args: Draft) -> None:
    """It is said once whose learning rates a run goes on with, and only where it goes on with some."""
    if not args.use_checkpoint_lr_scheduler:
        return
    if args.override_lr_scheduler:
        raise Conflict(
            ("override_lr_scheduler", "use_checkpoint_lr_scheduler"),
            "the learning rates are those of this config (override_lr_scheduler) or those of the checkpoint "
            "(use_checkpoint_lr_scheduler); keep one of the two",
        )
    for key in ("finetune", "no_load_optim"):
        if getattr(args, key):
            raise Conflict(
                ("use_checkpoint_lr_scheduler", key),
                f"with {key} the learning rates are those of this config; keep one of the two",
            )


def check_async_save(args: Draft) -> None:
    """There is something that could be saved in the background."""
    if args.async_save and args.save is None:
        raise Conflict(
            ("async_save", "save"),
            "nothing is saved without a directory; name one in save, or remove async_save",
        )


def check_checkpoint_exists(args: Draft) -> None:
    """What should be loaded is there, so that no run starts from random weights by accident."""
    if args.load is None or args.load_if_exists or "://" in args.load:
        return
    try:
        _check_checkpoint_exists(Path(args.load))
    except OSError as error:  # no permission, a name that is too long
        raise Conflict(("load",), f"it cannot be looked into ({error.strerror}); correct the path") from error


def _check_checkpoint_exists(folder: Path) -> None:
    if (
        not (folder / "latest").is_file()
        and not any(folder.glob("global_step*"))
        and not folder.name.startswith("global_step")
    ):
        if not is_free(folder):  # with load_if_exists it would be refused as well
            way_out = "; give a directory of checkpoints, or remove the key"
        elif directories_of_checkpoints(folder):
            way_out = ""  # is said with what is there
        else:
            way_out = "; correct the path, or set load_if_exists to true to start from the beginning"
        raise Conflict(("load",), f"there is no checkpoint to load: {what_is_there(folder)}{way_out}")
