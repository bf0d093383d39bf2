"""Which hosts and devices a run uses: the hostfile or this machine, cut by include, exclude, num_nodes and num_gpus."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence

from megatron.launcher.base import Host
from megatron.launcher.devices import count_devices
from megatron.launcher.host_filters import exclude_hosts, include_hosts
from megatron.launcher.hostfile import read_hostfile
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.keys.runner import RunnerArgs

LOCAL_HOST = "localhost"


def resolve_hosts(
    args: RunnerArgs, *, environment: Mapping[str, str] | None = None, devices: Callable[[], int] = count_devices
) -> tuple[Host, ...]:
    """The hosts of a run, each with the slots used of it; the world size is the number of slots.

    environment: where DLTS_HOSTFILE may name the hostfile; devices: counts the accelerators of this machine.
    Raises Conflict when the keys name hosts or devices that do not exist, ConfigError for mistakes in the hostfile.
    """
    variables = os.environ if environment is None else environment
    path = args.hostfile or variables.get("DLTS_HOSTFILE")
    named_by = "hostfile" if args.hostfile else "DLTS_HOSTFILE"
    hosts = read_hostfile(path, named_by=named_by) if path else (_this_machine(args.num_gpus, devices()),)
    if args.include and args.exclude:
        raise Conflict(("include", "exclude"), "only one of the two can be given; keep one of them")
    if (args.include or args.exclude) and not path:
        _check_names_this_machine(args)
    if args.include:
        hosts = include_hosts(hosts, args.include)
    elif args.exclude:
        hosts = exclude_hosts(hosts, args.exclude)
    hosts = _first_nodes(hosts, args, path)
    return _first_slots(hosts, args, path) if path else hosts


def is_this_machine(host: Host) -> bool:
    """Whether a host of the hostfile is the machine we are on, by name (no look-up over the network)."""
    own = socket.gethostname()
    return host.name in {LOCAL_HOST, "127.0.0.1", own, own.split(".")[0]}


def _check_names_this_machine(args: RunnerArgs) -> None:
    """Without a hostfile there is one host, so a filter can only choose its devices."""
    key = "include" if args.include else "exclude"
    names = {part.partition(":")[0].strip() for part in (args.include or args.exclude or "").split("@")}
    if names - {LOCAL_HOST}:
        reason = f"without a hostfile there is only {LOCAL_HOST}; set hostfile, or remove the key"
        raise Conflict((key,), reason)


def _this_machine(num_gpus: int | None, devices: int) -> Host:
    if num_gpus is not None and devices and num_gpus > devices:
        count = f"{devices} accelerator{'s' if devices > 1 else ''}"
        raise Conflict(
            ("num_gpus",),
            f"this machine shows {count}; set it to {devices} or less, or run that many processes on the CPU with "
            'CUDA_VISIBLE_DEVICES="" in the environment',
        )
    return Host(LOCAL_HOST, tuple(range(num_gpus or devices or 1)))


def _first_nodes(hosts: Sequence[Host], args: RunnerArgs, path: str | None) -> tuple[Host, ...]:
    if args.num_nodes <= len(hosts):
        return tuple(hosts[: args.num_nodes] if args.num_nodes > 0 else hosts)
    if path is None:
        raise Conflict(("num_nodes",), "without a hostfile there is only this machine; set hostfile, or num_nodes to 1")
    keys = [key for key in ("hostfile", "include", "exclude") if getattr(args, key)]
    left = f"{len(hosts)} host{'s' if len(hosts) > 1 else ''}"
    raise Conflict(
        ("num_nodes", *keys),
        f"there {'is' if len(hosts) == 1 else 'are'} {left}; lower num_nodes, or add hosts to {path}",
    )


def _first_slots(hosts: Sequence[Host], args: RunnerArgs, path: str) -> tuple[Host, ...]:
    if args.num_gpus is None:
        return tuple(hosts)
    for host in hosts:
        if args.num_gpus > len(host.slots):
            raise Conflict(
                ("num_gpus",),
                f'host "{host.name}" has {len(host.slots)} slots; set it to {len(host.slots)} or less, or raise slots= in {path}',
            )
    return tuple(Host(host.name, host.slots[: args.num_gpus]) for host in hosts)
