"""The last touches to the DeepSpeed configuration, which need the model or undo what a user's own DeepSpeed options may not change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

BUCKET_KEYS = ("reduce_bucket_size", "allgather_bucket_size")
DEFAULT_BUCKET_SIZE = 500_000_000


def engine_settings(base: dict[str, Any], parameters: Iterable[nn.Parameter]) -> dict[str, Any]:
    """`build_deepspeed_config`'s dictionary made ready for `deepspeed.initialize` of a model with these local parameters.

    * ZeRO is on (see `effective_zero_stage`) and its buckets are no larger than the gradients;
    * a step whose gradients are not finite is skipped in bf16 at every stage, as it is in fp32 and fp16;
    * any optimizer may be combined with offloading to the CPU;
    * DeepSpeed prints nothing and does not wait for the device around every micro-batch, unless its own timings were asked for.
    """
    settings = {**base, "zero_force_ds_cpu_optimizer": False}
    settings["zero_optimization"] = _zero_settings(dict(base.get("zero_optimization") or {}), parameters)
    if not base.get("wall_clock_breakdown"):
        settings["steps_per_print"] = None
        settings.setdefault("timers", {"throughput": {"enabled": False}})
    if (base.get("bf16") or {}).get("enabled"):
        settings["bf16"] = {**base["bf16"], "check_grad_overflow": True}
    return settings


def _zero_settings(zero: dict[str, Any], parameters: Iterable[nn.Parameter]) -> dict[str, Any]:
    zero["stage"] = max(1, int(zero.get("stage", 0)))
    # A bucket is allocated whole; one that holds every local gradient does all that a larger one could.
    total = sum(parameter.numel() for parameter in parameters)
    largest = max(2, total + total % 2)  # DeepSpeed refuses odd sizes
    for key in BUCKET_KEYS:
        zero[key] = min(int(zero.get(key, DEFAULT_BUCKET_SIZE)), largest)
    return zero
