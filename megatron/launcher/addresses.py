"""The addresses of this machine with which the machines of a job may reach it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

LOOPBACK = "127.0.0.1"
ANY_PORT = 9
"""Nothing is sent there: connecting a datagram socket only looks the route up."""


def own_addresses(hosts: Iterable[str]) -> tuple[str, ...]:
    """IPv4 addresses of this machine, those first that lead to `hosts`; the loopback only when there is nothing else."""
    import psutil  # type: ignore[import-untyped]  # costs the start of every job on one machine, which does not need it

    leading = [address for host in list(hosts)[:8] if (address := _address_towards(host)) is not None]
    interfaces = psutil.net_if_stats()
    others = [
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        if (status := interfaces.get(name)) is not None and status.isup
        for entry in entries
        if entry.family == socket.AF_INET
    ]
    outward = [address for address in dict.fromkeys([*leading, *others]) if not address.startswith("127.")]
    return tuple(outward) or (LOOPBACK,)


def _address_towards(host: str) -> str | None:
    """The address that packets from here to `host` bear; None when its name is not known here."""
    name = host.rpartition("@")[2]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((name, ANY_PORT))
        return str(probe.getsockname()[0])
    return None
