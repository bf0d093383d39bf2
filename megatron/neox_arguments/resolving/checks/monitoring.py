"""Where metrics go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_wandb_host(args: Draft) -> None:
    """The server of Weights & Biases is a web address."""
    if args.use_wandb and not args.wandb_host.startswith(("http://", "https://")):
        raise Conflict(("wandb_host",), f"expected a web address; write https://{args.wandb_host}")
