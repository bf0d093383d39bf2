"""The configurations that `deepy.py parity` compares: made from the user's, and in what they differ from it. Starts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megatron.data.made_up import make_up_dataset
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.smallest_world import smallest_world
from megatron.neox_arguments.shrinking.comparable import EPS, MadeUp, comparable, on_one_process
from megatron.neox_arguments.shrinking.features import features
from megatron.neox_arguments.shrinking.shrink import shrink

LIMITS = (2, 4, 8, 16)
"""Two of each of four parallel sizes are the most that shrinking keeps."""
DATASETS = 3
DEFAULT_EPS = 1e-8


@dataclass(frozen=True)
class Compared:
    """The configuration as it is, made comparable in its own size, and of both runs. needed: processes with which nothing is left out."""

    config: NeoXArgs
    full: NeoXArgs
    layout: NeoXArgs
    one_process: NeoXArgs
    needed: int


@dataclass(frozen=True)
class Runs:
    """Two configurations, and the report's facts about them."""

    layout: ConfigValues
    one_process: ConfigValues
    compared: Compared


def prepare(values: ConfigValues, directory: Path, *, processes: int) -> Runs:
    """Generate data, and derive both configurations. Raises ConfigError with everything that keeps the config from running here."""
    made = [make_up_dataset(directory / "data", number) for number in range(DATASETS)]
    data = MadeUp(tuple(str(text) for text, _ in made), tuple(str(labels) for _, labels in made))
    config = NeoXArgs.from_values(values, world_size=smallest_world(values), planning=True)
    full = comparable(values, data)
    full_args = NeoXArgs.from_values(full, world_size=smallest_world(full))
    layout = shrink(full, world_size_limit=processes)
    one_process = on_one_process(layout)
    layout_args = NeoXArgs.from_values(layout)
    needed = _processes_for_all(full, full_args) if left_out(full_args, layout_args) else layout_args.global_num_gpus
    compared = Compared(config, full_args, layout_args, NeoXArgs.from_values(one_process), needed=needed)
    return Runs(layout, one_process, compared)


def _processes_for_all(full: ConfigValues, args: NeoXArgs) -> int:
    """The smallest limit under which shrinking leaves nothing out."""
    layouts = (NeoXArgs.from_values(shrink(full, world_size_limit=limit)) for limit in LIMITS)
    return next((layout.global_num_gpus for layout in layouts if not left_out(args, layout)), LIMITS[-1])


def kept(compared: Compared) -> list[str]:
    """Features of the config that the run in its layout has."""
    return sorted(features(compared.config) & features(compared.layout))


def left_out(full: NeoXArgs, layout: NeoXArgs) -> list[str]:
    """Features of the config that a run in a smaller layout lacks, for want of processes."""
    lost = sorted(features(full) - features(layout))
    if full.data_parallel_size > 1 == layout.data_parallel_size:
        lost.append("data-parallel copies")
    return lost


def changed(config: NeoXArgs) -> list[str]:
    """What is not the config's, so that the runs can be compared."""
    changes = ["fp32" if config.precision == "fp32" else f"fp32 in place of {config.precision}"]
    eps = float(((config.optimizer or {}).get("params") or {}).get("eps", DEFAULT_EPS))
    if eps != EPS:
        changes.append(f"Adam's eps {EPS:g} in place of {eps:g}, which would make full steps of rounding noise")
    return [*changes, "generated text in characters", "a checkpoint after every step"]
