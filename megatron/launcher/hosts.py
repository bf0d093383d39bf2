"""Which hosts and devices a run uses: the hostfile or this machine, cut by include, exclude, num_nodes and num_gpus."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence

from megatron.errors import LaunchError
from megatron.launcher.base import Host
from megatron.launcher.devices import count_devices
from megatron.launcher.hostfile import exclude_hosts, include_hosts, read_hostfile
from megatron.neox_arguments.runner import RunnerArgs

LOCAL_HOST = "localhost"


def resolve_hosts(
    args: RunnerArgs, *, environment: Mapping[str, str] | None = None, devices: Callable[[], int] = count_devices
) -> tuple[Host, ...]:
    """The hosts of a run, each with the slots used of it; the world size is the number of slots.

    environment: where DLTS_HOSTFILE may name the hostfile; devices: counts the accelerators of this machine.
    Raises LaunchError when the keys name hosts or devices that do not exist.
    """
    variables = os.environ if environment is None else environment
    path = args.hostfile or variables.get("DLTS_HOSTFILE")
    hosts = read_hostfile(path) if path else (_this_machine(args.num_gpus, devices()),)
    if args.include and args.exclude:
        raise LaunchError(f'"include" ({args.include}) and "exclude" ({args.exclude}) are both given: keep one of them')
    if args.include:
        hosts = include_hosts(hosts, args.include)
    elif args.exclude:
        hosts = exclude_hosts(hosts, args.exclude)
    hosts = _first_nodes(hosts, args.num_nodes)
    return _first_slots(hosts, args.num_gpus) if path else hosts


def is_this_machine(host: Host) -> bool:
    """Whether a host of the hostfile is the machine we are on, by name (no look-up over the network)."""
    own = socket.gethostname()
    return host.name in {LOCAL_HOST, "127.0.0.1", own, own.split(".")[0]}


def _this_machine(num_gpus: int | None, devices: int) -> Host:
    if num_gpus is not None and devices and num_gpus > devices:
        raise LaunchError(
            f'"num_gpus" is {num_gpus}, but this machine shows {devices} accelerator{"s" if devices > 1 else ""}: lower it, or set '
            'CUDA_VISIBLE_DEVICES="" to run that many processes on the CPU'
        )
    return Host(LOCAL_HOST, tuple(range(num_gpus or devices or 1)))


def _first_nodes(hosts: Sequence[Host], num_nodes: int) -> tuple[Host, ...]:
    if num_nodes > len(hosts):
        raise LaunchError(
            f'"num_nodes" is {num_nodes}, but there are {len(hosts)} hosts: list more in the hostfile, or lower it'
        )
    return tuple(hosts[:num_nodes] if num_nodes > 0 else hosts)


def _first_slots(hosts: Sequence[Host], num_gpus: int | None) -> tuple[Host, ...]:
    if num_gpus is None:
        return tuple(hosts)
    for host in hosts:
        if num_gpus > len(host.slots):
            raise LaunchError(
                f'"num_gpus" is {num_gpus}, but host "{host.name}" has {len(host.slots)} slots: raise slots= in the hostfile, or lower it'
            )
    return tuple(Host(host.name, host.slots[:num_gpus]) for host in hosts)
