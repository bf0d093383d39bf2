"""A configuration about a thousand times smaller that keeps every feature (`features.py`) and the kind of its layout.

Two layers a stage, four heads, two of each parallel size: small enough to try on a laptop whether a configuration works at all.
"""

from __future__ import annotations

from typing import Any

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.values import ConfigValues, Origin
from megatron.neox_arguments.resolving.smallest_world import smallest_world
from megatron.neox_arguments.shrinking.smaller_model import smaller_model
from megatron.neox_arguments.shrinking.smaller_run import smaller_layout, smaller_run
from megatron.neox_arguments.shrinking.smaller_schedules import smaller_schedules

ORIGIN = Origin("shrink")
"""Where every changed value says that it comes from."""


def shrink(values: ConfigValues, *, world_size_limit: int = 4) -> ConfigValues:
    """The small configuration for at most `world_size_limit` processes of this machine; what changed has the origin "shrink".

    Data, tokenizer, checkpoints and log directories stay as they are. Where the config does not say how many processes it is for,
    there are two data-parallel copies if the limit allows. Raises ConfigError when `values` do not resolve.
    """
    values, _ = modernise(values)
    args = NeoXArgs.from_values(values, world_size=smallest_world(values), planning=True)
    given = {key: value for key, value in values.values.items() if value is not None}
    copies = args.data_parallel_size if _says_processes(given) else 2
    sizes = args.pipe_parallel_size, copies, args.model_parallel_size, args.context_parallel_size
    layout = smaller_layout(*sizes, limit=world_size_limit)
    changes = {
        **smaller_model(args, given=given, tensor=layout.tensor, stages=layout.stages, context=layout.context),
        **smaller_run(args, given=given, layout=layout),
    }
    changes |= smaller_schedules(
        args,
        layout=layout,
        micro=changes["train_micro_batch_size_per_gpu"],
        accumulation=changes["gradient_accumulation_steps"],
        length=changes["seq_length"],
    )
    for key, value in changes.items():
        if _current(values, key) != value:
            values = values.with_value(key.split("."), value, ORIGIN)
    return values


def _says_processes(given: dict[str, Any]) -> bool:
    micro = {"train_micro_batch_size_per_gpu", "batch_size"} & given.keys()
    batch = {"train_batch_size", "gradient_accumulation_steps"} <= given.keys()
    return bool({"global_num_gpus", "world_size"} & given.keys()) or (bool(micro) and batch)


def _current(values: ConfigValues, key: str) -> Any:
    """The written value, else the default."""
    written = values.value(key)
    return NeoXArgs.model_fields[key].default if written is None and "." not in key else written
