"""A configuration about a thousand times smaller that keeps every feature (`features.py`) and the kind of its layout.

Two layers a stage, four heads, two of each parallel size: small enough to try on a laptop whether a configuration works at all.
"""

from __future__ import annotations

from typing import Any

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.values import ConfigValues, Origin
from megatron.neox_arguments.shrinking.smaller_model import smaller_model
from megatron.neox_arguments.shrinking.smaller_run import smaller_layout, smaller_run

ORIGIN = Origin("shrink")
"""Where every changed value says that it comes from."""


def shrink(values: ConfigValues, *, world_size_limit: int = 4) -> ConfigValues:
    """The small configuration for at most `world_size_limit` processes of this machine; what changed has the origin "shrink".

    Data, tokenizer, checkpoints and log directories stay as they are. Where the config does not say how many processes it is for,
    there are two data-parallel copies if the limit allows. Raises ConfigError when `values` do not resolve.
    """
    values, _ = modernise(values)
    args = NeoXArgs.from_values(values, world_size=processes, planning=True)
    given = {key: value for key, value in values.values.items() if value is not None}
    copies = args.data_parallel_size if _says_processes(given) else 2
    layout = smaller_layout(args.pipe_parallel_size, copies, args.model_parallel_size, limit=world_size_limit)
    changes = {
        **smaller_model(args, given=given, tensor=layout.tensor, stages=layout.stages),
        **smaller_run(args, given=given, layout=layout),
    }
    for key, value in changes.items():
        path = key.split(".")
        if _current(values, path) != value:
            values = values.with_value(path, value, ORIGIN)
    return values


def processes(args: Any) -> int:
    """Processes that a config is for, from its written values: as many as it says, else as few as it can have."""
    copy = max(args.pipe_parallel_size, 1) * args.model_parallel_size
    written = args.global_num_gpus or args.world_size
    if written:
        return int(written)
    micro = args.train_micro_batch_size_per_gpu or args.batch_size
    if args.train_batch_size and micro and args.gradient_accumulation_steps:
        return int(max(args.train_batch_size // (micro * args.gradient_accumulation_steps), 1) * copy)
    return int(copy)


def _says_processes(given: dict[str, Any]) -> bool:
    micro = {"train_micro_batch_size_per_gpu", "batch_size"} & given.keys()
    batch = {"train_batch_size", "gradient_accumulation_steps"} <= given.keys()
    return bool({"global_num_gpus", "world_size"} & given.keys()) or (bool(micro) and batch)


def _current(values: ConfigValues, path: list[str]) -> Any:
    """The written value, else the default."""
    section: Any = values.values
    for name in path:
        if not isinstance(section, dict) or name not in section:
            return NeoXArgs.model_fields[path[0]].default if len(path) == 1 else None
        section = section[name]
    return section
