"""Two ways to write one value: which keys are another spelling of which.

Within one file both may stand if they agree. Between files, and on the command line, the later one wins like any other key.
"""

from __future__ import annotations

ZERO_ALIASES = {
    "zero_stage": "stage",
    "zero_reduce_scatter": "reduce_scatter",
    "zero_contiguous_gradients": "contiguous_gradients",
    "zero_reduce_bucket_size": "reduce_bucket_size",
    "zero_allgather_bucket_size": "allgather_bucket_size",
}

LOSS_SCALE_ALIASES = {
    "loss_scale": "loss_scale",
    "loss_scale_window": "loss_scale_window",
    "hysteresis": "hysteresis",
    "min_scale": "min_loss_scale",
}

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
