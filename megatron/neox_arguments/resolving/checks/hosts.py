"""Which hosts a run may use; checked before hosts and devices are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_hostfile_exists(args: Draft) -> None:
    """A hostfile that is named can be read."""
    if args.hostfile is not None and not (path := Path(args.hostfile)).is_file():
        is_other = "this is a folder" if path.is_dir() else "this is a pipe or a device"
        state = is_other if path.exists() else "this file does not exist"
        raise Conflict(("hostfile",), f"{state}; correct the path, or remove the key to use this machine only")


def check_include_or_exclude(args: Draft) -> None:
    """Hosts are chosen by naming those to use or those not to."""
    if args.include and args.exclude:
        raise Conflict(("include", "exclude"), "only one of the two can be given; remove exclude")
