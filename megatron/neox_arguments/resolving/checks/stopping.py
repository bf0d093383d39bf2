"""Runs that are cut short, or started again, have saved what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_time_limit(args: Draft) -> None:
    """A run that stops by the clock saves what it did."""
    if args.exit_duration_minutes is not None and args.save is None:
        raise Conflict(
            ("exit_duration_minutes", "save"),
            "the run would stop there and lose all it did; remove the key, or name a directory to save in",
        )


def check_restarts(args: Draft) -> None:
    """Processes that are started again find what their predecessors saved, with all that training goes on with."""
    if not args.max_restarts:
        return
    if args.save is None:
        raise Conflict(
            ("max_restarts", "save"),
            "there are no checkpoints to go on from; set max_restarts to 0, or name a directory to save in",
        )
    if args.no_save_optim:
        raise Conflict(
            ("max_restarts", "no_save_optim"),
            "training cannot go on from a checkpoint without the optimizer's state; set no_save_optim to false, or max_restarts to 0",
        )


def check_elastic(args: Draft) -> None:
    """A run goes on with fewer machines when it is started again."""
    if args.elastic and not args.max_restarts:
        raise Conflict(
            ("elastic", "max_restarts"),
            "a run goes on with fewer machines when it is started again; set max_restarts to 1 or more, or elastic to false",
        )
