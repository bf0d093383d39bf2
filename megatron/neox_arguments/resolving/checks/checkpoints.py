"""When checkpoints are written, and that the one to load is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megatron.foreign import (
    MODEL_PREFIX,
    Program,
    directories_of_checkpoints,
    is_free,
    may_be_on_the_hub,
    program_of_load,
    what_is_there,
)
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
        if args.load.startswith(MODEL_PREFIX):
            _check_model_exists(args.load)
        elif program_of_load(args.load) is None:
            _check_checkpoint_exists(Path(args.load))
    except OSError as error:  # no permission, a name that is too long
        raise Conflict(("load",), f"it cannot be looked into ({error.strerror}); correct the path") from error


def check_load_of_another_program(args: Draft) -> None:
    """What is said of checkpoints is not said of a model of another program, which is there or not, and has no iterations."""
    try:
        program = None if args.load is None else program_of_load(args.load)
    except OSError:  # said by the check of its existence
        return
    if program is None:
        return
    if args.load_if_exists and program is not Program.NEOX:  # beside whose checkpoints a run may save its own
        raise Conflict(
            ("load_if_exists", "load"),
            f"this is a model of {program.value}, from which a run begins in any case; set load_if_exists to false "
            "(a run that is started again by max_restarts goes on from save by itself)",
        )
    if args.use_checkpoint_lr_scheduler:
        raise Conflict(
            ("use_checkpoint_lr_scheduler", "load"),
            f"a model of {program.value} has no learning rates that could be taken over; set use_checkpoint_lr_scheduler to false",
        )
    if args.iteration is not None and program is not Program.NEOX:
        raise Conflict(
            ("iteration", "load"),
            f"a model of {program.value} is one model, not a checkpoint of several; remove iteration",
        )


def _check_model_exists(load: str) -> None:
    path = Path(load.removeprefix(MODEL_PREFIX)).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        raise Conflict(
            ("load",), f"{path} holds no model of {Program.HUGGING_FACE.value}: {what_is_there(path)}; correct the path"
        )
    if path.is_dir() or (may_be_on_the_hub(load) and not path.exists()):
        return
    found = "it is a file" if path.exists() else f"there is no directory {path}"
    raise Conflict(
        ("load",), f"{found}; correct the path, or give the name of a model of the Hub, hf:ORGANISATION/NAME"
    )


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
