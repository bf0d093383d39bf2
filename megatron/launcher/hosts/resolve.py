"""Which hosts and devices a run uses: the hostfile, the machines of an allocation, or this one, cut by include, exclude, num_nodes and num_gpus."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from megatron.launcher.base import Host
from megatron.launcher.devices import count_devices
from megatron.launcher.hosts.filters import exclude_hosts, include_hosts
from megatron.launcher.hosts.hostfile import read_hostfile
from megatron.launcher.hosts.node_environment import node_environment
from megatron.launcher.hosts.scheduler import find_allocation
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.keys.runner import RunnerArgs

LOCAL_HOST = "localhost"
SHOWN_HOSTS = 8


@dataclass(frozen=True)
class Listed:
    """Hosts with all their slots, and where they come from.

    source: the path of the hostfile, or the variable of a scheduler; None when this is no list that a user could cut by names and numbers.
    more: how there would be more of them. counted: whether the slots are those that `num_gpus` asks for already.
    """

    hosts: tuple[Host, ...]
    source: str | None = None
    more: str = ""
    counted: bool = True


def resolve_hosts(
    args: RunnerArgs, *, environment: Mapping[str, str] | None = None, devices: Callable[[], int] = count_devices
) -> tuple[Host, ...]:
    """The hosts of a run, each with the slots used of it; the world size is the number of slots.

    environment: where DLTS_HOSTFILE may name the hostfile, and a scheduler its machines; devices: counts the accelerators of this machine.
    Raises Conflict when the keys name hosts or devices that do not exist, ConfigError for mistakes in the hostfile, LaunchError for
    variables that cannot be read.
    """
    variables = os.environ if environment is None else environment
    listed = find_hosts(args, variables, devices)
    hosts = _first_nodes(_filtered(listed, args), args, listed)
    return hosts if listed.counted else _first_slots(hosts, args, str(listed.source))


def listed_hosts(
    args: RunnerArgs, *, environment: Mapping[str, str] | None = None, devices: Callable[[], int] = count_devices
) -> tuple[Host, ...]:
    """All hosts that a run may use, with all their slots: those that `include` and `exclude` leave. Arguments and errors as of `resolve_hosts`."""
    variables = os.environ if environment is None else environment
    return _filtered(find_hosts(args, variables, devices), args)


def describe_hosts(
    args: RunnerArgs, hosts: Sequence[Host], *, environment: Mapping[str, str] | None = None
) -> str | None:
    """One line with the hosts of a run and where they come from, such as `hosts: h1, h2 with 4 slots each (from SLURM_JOB_NODELIST)`; None
    for this machine alone."""
    source = find_hosts(args, os.environ if environment is None else environment, lambda: 0).source
    if source is None:
        return None
    shown = [host.name for host in hosts[:SHOWN_HOSTS]]
    more = [f"{len(hosts) - len(shown)} more"] if len(hosts) > len(shown) else []
    counts = sorted({len(host.slots) for host in hosts})
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    slots = f"{number} slot{'' if counts == [1] else 's'}{' each' if len(hosts) > 1 else ''}"
    return f"hosts: {', '.join([*shown, *more])} with {slots} (from {source})"


def find_hosts(args: RunnerArgs, environment: Mapping[str, str], devices: Callable[[], int]) -> Listed:
    """The hostfile; else, for a launcher that reaches other machines, what a scheduler has given; else this machine. Errors as of `resolve_hosts`."""
    path = args.hostfile or environment.get("DLTS_HOSTFILE")
    if path:
        hosts = read_hostfile(path, named_by="hostfile" if args.hostfile else "DLTS_HOSTFILE")
        return Listed(hosts, path, f"add hosts to {path}", counted=False)
    if args.launcher == "torchrun":
        place = node_environment(environment)
        hosts = place.hosts(args.num_gpus or devices() or 1)
        return Listed(hosts, "the environment", "start deepy.py on more of them") if len(hosts) > 1 else Listed(hosts)
    if args.launcher not in (None, "local"):
        allocation = find_allocation(environment, num_gpus=args.num_gpus, devices=devices)
        if allocation is not None:
            return Listed(allocation.hosts, allocation.source, "ask the scheduler for more machines")
    return Listed((_this_machine(args.num_gpus, devices()),))


def _filtered(listed: Listed, args: RunnerArgs) -> tuple[Host, ...]:
    if args.include and args.exclude:
        raise Conflict(("include", "exclude"), "only one of the two can be given; keep one of them")
    if (args.include or args.exclude) and listed.source is None:
        _check_names_this_machine(args)
    if args.include:
        return include_hosts(listed.hosts, args.include)
    return exclude_hosts(listed.hosts, args.exclude) if args.exclude else listed.hosts


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


def _first_nodes(hosts: Sequence[Host], args: RunnerArgs, listed: Listed) -> tuple[Host, ...]:
    if args.num_nodes <= len(hosts):
        return tuple(hosts[: args.num_nodes] if args.num_nodes > 0 else hosts)
    if listed.source is None:
        raise Conflict(("num_nodes",), "without a hostfile there is only this machine; set hostfile, or num_nodes to 1")
    keys = [key for key in ("hostfile", "include", "exclude") if getattr(args, key)]
    left = f"{len(hosts)} host{'s' if len(hosts) > 1 else ''}"
    raise Conflict(
        ("num_nodes", *keys),
        f"there {'is' if len(hosts) == 1 else 'are'} {left}; lower num_nodes, or {listed.more}",
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
