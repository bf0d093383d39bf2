"""What the agent finds out about the network of its machine: interfaces, and a port for the store of the ranks."""

from __future__ import annotations

import socket
import struct
import sys

from megatron.errors import LaunchError

SIOCGIFADDR = 0x8915
"""Linux's request for the address of an interface (netdevice(7))."""


def open_port(port: int, *, address: str, fixed: bool) -> socket.socket:
    """A listening socket on `port`, or on a free one when it is taken. address: of this machine to listen on, "" for all of them.

    Raises LaunchError when the port is `fixed`, because the user chose it for several machines (a firewall may let only this one pass).
    """
    try:
        return socket.create_server((address, port), backlog=4096)
    except OSError as error:
        if fixed:
            raise LaunchError(
                f'"master_port" is {port}, which cannot be opened on {socket.gethostname()} ({error.strerror}): choose another one, or remove '
                "the key to have a free one chosen"
            ) from None
        return socket.create_server((address, 0), backlog=4096)


def interface_of(address: str) -> str | None:
    """The network interface that has this address; None where that cannot be told (it has none, or this is not Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    from fcntl import ioctl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
