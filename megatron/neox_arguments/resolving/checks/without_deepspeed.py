"""Training without DeepSpeed: which layouts and formats it is built for, and what nobody but DeepSpeed does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from megatron.errors import ConfigError
from megatron.neox_arguments.resolving.unsupported import is_off

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

OF_DEEPSPEED = (
    *("flops_profiler", "comms_logger", "tensorboard", "csv_monitor", "wall_clock_breakdown", "dump_state"),
    *("prescale_gradients", "gradient_predivide_factor", "deepspeed_extra_args"),
)
"""Keys that ask DeepSpeed for something, whatever the layout."""

OF_ITS_ZERO = ("offload_optimizer", "cpu_offload", "zenflow")
"""Keys of `zero_optimization` that do so at stages 0 and 1. The others say how DeepSpeed arranges its buffers."""


def check_without_deepspeed(args: Draft) -> None:
    """With `deepspeed: false`, nothing is asked for that only DeepSpeed has."""
    if args.deepspeed:
        return
    problems = [args.describe((key, "deepspeed"), reason) for key, reason in _problems(args)]
    if problems:
        raise ConfigError(problems)


def _problems(args: Draft) -> Iterator[tuple[str, str]]:
    """(key, reason) of everything that is asked for."""
    if args.pipe_parallel_size:
        yield (
            "pipe_parallel_size",
            "pipelines need DeepSpeed; set pipe_parallel_size to 0, or deepspeed to true",
        )
    if args.zero_stage > 1:
        yield "zero_stage", "ZeRO 2 and 3 need DeepSpeed; set the stage to 1, or deepspeed to true"
    if args.precision == "fp16":
        yield "precision", 'fp16 and its loss scale need DeepSpeed; set precision to "bfloat16", or deepspeed to true'
    if args.communication_data_type == "fp16":
        yield (
            "communication_data_type",
            'without DeepSpeed gradients travel in fp32 or bf16; set communication_data_type to "bf16", or deepspeed to true',
        )
    if (args.data_types or {}).get("grad_accum_dtype", "fp32") != "fp32":
        yield (
            "data_types.grad_accum_dtype",
            'without DeepSpeed gradients accumulate in fp32; set data_types.grad_accum_dtype to "fp32", or deepspeed to true',
        )
    for key in OF_ITS_ZERO:
        if not is_off(args.zero_optimization.get(key), None):
            yield f"zero_optimization.{key}", "only DeepSpeed can do it; remove it, or set deepspeed to true"
    for key in OF_DEEPSPEED:
        if not is_off(args.values[key], args.default(key)):
            yield key, "only DeepSpeed can do it; remove the key, or set deepspeed to true"
