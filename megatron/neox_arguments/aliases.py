"""Two ways to write one value: which keys are another spelling of which.

Within one file both may stand if they agree. Between files, and on the command line, the later one wins like any other key.
"""

from __future__ import annotations

from megatron.neox_arguments.steps import LOSS_SCALE_ALIASES, ZERO_ALIASES

ALIASES: dict[str, str] = {
    "batch_size": "train_micro_batch_size_per_gpu",
    "clip_grad": "gradient_clipping",
    "world_size": "global_num_gpus",
    "lr": "optimizer.params.lr",
    "weight_decay": "optimizer.params.weight_decay",
    "optimizer_type": "optimizer.type",
    **{alias: f"zero_optimization.{key}" for alias, key in ZERO_ALIASES.items()},
    **{alias: f"fp16.{key}" for alias, key in LOSS_SCALE_ALIASES.items()},
}
"""Other spelling -> where configs usually write it."""


def spellings(key: str) -> tuple[str, ...]:
    """`key` and its other spelling, if it has one."""
    other = ALIASES.get(key) or next((alias for alias, path in ALIASES.items() if path == key), None)
    return (key,) if other is None else (key, other)
