"""When checkpoints are written, and that the one to load is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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


def check_checkpoint_exists(args: Draft) -> None:
    """What should be loaded is there, so that no run starts from random weights by accident."""
    if args.load is None or args.load_if_exists or "://" in args.load:
        return
    folder = Path(args.load)
    if (
        not (folder / "latest").is_file()
        and not any(folder.glob("global_step*"))
        and not folder.name.startswith("global_step")
    ):
        state = "holds no checkpoint" if folder.is_dir() else "does not exist"
        raise Conflict(
            ("load",),
            f"this directory {state}; correct the path, or set load_if_exists to true to start from the beginning",
        )
