"""A run of a few iterations on at most a few processes, of the same kind as a given one. Pure; used by shrink.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megatron.neox_arguments.arguments import NeoXArgs

ITERATIONS = 4
BUCKET = 1_000_000


@dataclass(frozen=True)
class SmallLayout:
    """Sizes of the grid; `pipe` as pipe_parallel_size, where 0 means no pipeline engine."""

    pipe: int
    data: int
    tensor: int
    context: int = 1

    @property
    def stages(self) -> int:
        return max(self.pipe, 1)

    @property
    def world_size(self) -> int:
        return self.stages * self.data * self.context * self.tensor


def smaller_layout(pipe: int, data: int, tensor: int, context: int = 1, *, limit: int) -> SmallLayout:
    """At most two of each; where these are more processes than `limit`, data-parallel copies go first, then the pipeline, then context
    ranks, then tensor ranks."""
    pipe, data, tensor, context = (min(size, 2) for size in (pipe, data, tensor, context))
    single = min(pipe, 1)
    candidates = [
        *(SmallLayout(pipe, copies, tensor, context) for copies in (data, 1)),
        *(SmallLayout(single, copies, tensor, context) for copies in (data, 1)),
        *(SmallLayout(single, copies, tensor) for copies in (data, 1)),
        *(SmallLayout(single, copies, 1) for copies in (data, 1)),
    ]
    return next((layout for layout in candidates if layout.world_size <= limit), candidates[-1])


def smaller_run(args: NeoXArgs, *, given: Mapping[str, Any], layout: SmallLayout) -> dict[str, Any]:
    """New values by key path; `given`: the keys that were written."""
    return {
        "pipe_parallel_size": layout.pipe,
        "model_parallel_size": layout.tensor,
        "context_parallel_size": layout.context,
        "global_num_gpus": layout.world_size,
        "num_gpus": layout.world_size,
        **{
            key: None
            for key in ("world_size", "hostfile", "include", "exclude", "num_nodes", "master_addr")
            if key in given
        },
        **_batch(args, given, layout),
        **_schedule(args, given),
        **_intervals(args),
        **_buckets(args, given),
    }


def _batch(args: NeoXArgs, given: Mapping[str, Any], layout: SmallLayout) -> dict[str, Any]:
    micro, accumulation = min(args.train_micro_batch_size_per_gpu, 2), min(args.gradient_accumulation_steps, 2)
    changes = {"train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": accumulation}
    if "batch_size" in given:
        changes["batch_size"] = micro
    if "train_batch_size" in given:
        changes["train_batch_size"] = micro * accumulation * layout.data
    return changes


def _schedule(args: NeoXArgs, given: Mapping[str, Any]) -> dict[str, Any]:
    """A few iterations; the decay ends before, with or after them as it did, and warm-up takes at least one."""
    decay, before = ITERATIONS, args.train_iters
    if before is not None and args.lr_decay_steps != before:
        decay = ITERATIONS - 1 if args.lr_decay_steps < before else 2 * ITERATIONS
    changes: dict[str, Any] = {"train_iters": ITERATIONS}
    changes |= {key: None for key in ("train_epochs", "lr_decay_fraction") if key in given}
    if decay != ITERATIONS or "lr_decay_iters" in given:
        changes["lr_decay_iters"] = decay
    if args.warmup > 0:
        changes["warmup"] = max(args.warmup, 1 / decay)
    return changes


def _intervals(args: NeoXArgs) -> dict[str, Any]:
    """Everything that happens now and then happens within the run."""
    changes: dict[str, Any] = {
        "log_interval": 1,
        "eval_interval": min(args.eval_interval, ITERATIONS // 2),
        "eval_iters": min(args.eval_iters, 1),
    }
    if args.checkpoint_factor is not None and args.checkpoint_scale == "linear":
        changes["checkpoint_factor"] = min(int(args.checkpoint_factor), ITERATIONS // 2)
    if args.check_desync:
        changes["check_desync"] = min(args.check_desync, ITERATIONS // 2)
    if args.exit_interval is not None:
        changes["exit_interval"] = min(args.exit_interval, ITERATIONS)
    if args.profile:
        changes |= {"profile_step_start": 1, "profile_step_stop": 2}
    if (args.flops_profiler or {}).get("profile_step"):
        changes["flops_profiler.profile_step"] = 1
    if args.log_gradient_noise_scale:
        changes["gradient_noise_scale_n_batches"] = 2
    return changes


def _buckets(args: NeoXArgs, given: Mapping[str, Any]) -> dict[str, Any]:
    """Buckets that are not larger than a laptop; at stage 3, weights of a tiny model are large enough to be divided."""
    section = "zero_optimization."
    changes: dict[str, Any] = {
        section + key: min(args.zero_optimization[key], BUCKET)
        for key in ("reduce_bucket_size", "allgather_bucket_size")
        if key in (given.get("zero_optimization") or {})
    }
    for key in ("zero_reduce_bucket_size", "zero_allgather_bucket_size"):
        if key in given:
            changes[key] = min(getattr(args, key), BUCKET)
    if args.zero_stage == 3:
        changes[section + "stage3_param_persistence_threshold"] = 100
    return changes
