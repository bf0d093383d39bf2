"""Which cluster a config is planned for: the one that is asked for, the devices a launcher would find here, else generic ones."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from megatron.errors import ConfigError
from megatron.launcher.asking import ask_program
from megatron.launcher.devices import ANSWER_SECONDS, count_devices
from megatron.launcher.hosts.resolve import resolve_hosts
from megatron.neox_arguments.keys.runner import RunnerArgs
from megatron.neox_arguments.keys.types import whole_number
from megatron.neox_arguments.reading.load import apply_overrides
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.hardware.devices import DEVICES_PER_NODE, GENERIC, Cluster, Device, recognise

WORLD_KEYS = ("global_num_gpus", "world_size")


def choose_cluster(values: ConfigValues, gpus: Cluster | None) -> tuple[Cluster, list[str]]:
    """The cluster to plan for, with what the user should know about that choice."""
    if gpus is not None:
        written = [key for key in WORLD_KEYS if whole_number(values.values.get(key)) not in (None, gpus.world_size)]
        return gpus, [
            f'"{key}" is {values.values[key]} in the config: --gpus counts here, remove the key before training'
            for key in written
        ]
    found = find_cluster(_runner_args(values), unknown=GENERIC)
    if found is None:
        cluster = _generic_cluster(values)
        return cluster, [
            f"no accelerator and no hostfile here: planned for {cluster}, enough for the parallel sizes of the config; "
            "say what you will train on, e.g. --gpus 8xH100 or --gpus 96xA100-40GB"
        ]
    cluster, is_known = found
    if is_known:
        return cluster, [
            f"the devices are those found for this config; --gpus plans for others, e.g. --gpus 8x{GENERIC.name}"
        ]
    return cluster, [f"the product of the devices is not known: {GENERIC.name} is assumed; say it with --gpus"]


def without_world(values: ConfigValues) -> ConfigValues:
    """The values without the number of processes, which the cluster decides."""
    return apply_overrides(
        values, [f"{key}=null" for key in WORLD_KEYS if values.values.get(key) is not None], source="deepy.py plan"
    )


def product_names() -> tuple[str, ...]:
    """What the driver calls the NVIDIA devices of this machine; empty without them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = ask_program(query, seconds=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(filter(None, map(str.strip, listing.stdout.splitlines()))) if listing.returncode == 0 else ()


def find_cluster(
    args: RunnerArgs,
    *,
    unknown: Device,
    environment: Mapping[str, str] | None = None,
    devices: Callable[[], int] = count_devices,
    names: Callable[[], tuple[str, ...]] = product_names,
) -> tuple[Cluster, bool] | None:
    """The devices that the launcher keys of a config select here or in the hostfile, and whether their product is known (it is taken to
    be the one of this machine everywhere, else `unknown`); None when there are no accelerators and no hostfile.

    Hosts with different numbers of devices count as more nodes of fewer. Raises NeoXError for keys that name what does not exist.
    """
    variables = os.environ if environment is None else environment
    if not (args.hostfile or variables.get("DLTS_HOSTFILE")) and devices() == 0:
        return None
    slots = [len(host.slots) for host in resolve_hosts(args, environment=variables, devices=devices)]
    per_node = math.gcd(*slots)
    device = next((known for known in map(recognise, names()) if known is not None), None)
    return Cluster(sum(slots) // per_node, per_node, device or unknown), device is not None


def _runner_args(values: ConfigValues) -> RunnerArgs:
    """The launcher keys alone. Raises ConfigError when one of them has no usable value."""
    given = {key: value for key, value in values.values.items() if key in RunnerArgs.model_fields and value is not None}
    try:
        return RunnerArgs.model_validate(given)
    except ValidationError as error:
        keys = ", ".join(f'"{details["loc"][0]}"' for details in error.errors())
        raise ConfigError(
            [f"the devices cannot be found because of {keys}: correct the value, or give --gpus"]
        ) from None


def _generic_cluster(values: ConfigValues) -> Cluster:
    """As many generic devices as the config names, or one copy of its model takes."""
    copy = math.prod(
        whole_number(values.values.get(f"{part}_parallel_size")) or 1 for part in ("pipe", "context", "model")
    )
    written = [whole_number(values.values.get(key)) for key in WORLD_KEYS]
    count = next(filter(None, written), copy)
    per_node = max(size for size in range(1, min(count, DEVICES_PER_NODE) + 1) if count % size == 0)
    return Cluster(count // per_node, per_node, GENERIC)
