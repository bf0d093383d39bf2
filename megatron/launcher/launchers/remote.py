"""What all launchers have in common that reach other machines from this one, where the head is."""

from __future__ import annotations

from collections.abc import Sequence

from megatron.launcher.addresses import own_addresses
from megatron.launcher.base import HeadPlace, Host
from megatron.neox_arguments.keys.runner import RunnerArgs


class RemoteLauncher:
    """Base of launchers of other machines. A subclass says whether it needs ssh."""

    forwards = True
    holds_head = True

    def __init__(self, args: RunnerArgs) -> None:
        self._args = args

    def head_place(self, hosts: Sequence[Host]) -> HeadPlace:
        """At any address of this machine that leads to the hosts, on any port."""
        return HeadPlace(own_addresses(host.name for host in hosts))
