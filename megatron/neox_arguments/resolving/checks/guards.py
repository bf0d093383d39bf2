"""Guards of a run: a policy for spikes of the loss that can be carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_loss_spike(args: Draft) -> None:
    """There is a policy, and going back needs somewhere to go back to."""
    section = args.loss_spike
    if section is None:
        return
    if section.get("policy") is None:
        raise Conflict(("loss_spike",), 'it needs the key "policy"; choose one of warn, skip, rollback')
    if section["policy"] != "rollback":
        return
    if args.no_save_optim:
        raise Conflict(
            ("loss_spike.policy", "no_save_optim"),
            "a run cannot go back to a checkpoint without the optimizer's state; set no_save_optim to false",
        )
    if args.save is None:
        raise Conflict(
            ("loss_spike.policy", "save"),
            "there are no checkpoints to go back to; set loss_spike.policy to warn, or name a directory to save in",
        )
