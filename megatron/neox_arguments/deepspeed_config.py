"""The dictionary DeepSpeed 0.19.8 is configured with. Everything it is told is here, including what it must not do by itself."""

from __future__ import annotations

from typing import Any

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.keys.sections import for_deepspeed


def effective_zero_stage(args: NeoXArgs) -> int:
    """The ZeRO stage a run has: with DeepSpeed at least 1.

    DeepSpeed's stage 0 computes wrong gradient norms under a pipeline and wrong updates in half precision; stage 1 gives the numbers that
    stage 0 should, and with one data-parallel copy costs the same memory.
    """
    return max(args.zero_stage, 1) if args.deepspeed else args.zero_stage


def build_deepspeed_config(args: NeoXArgs) -> dict[str, Any]:
    """The DeepSpeed config of finished arguments. The optimizer and the learning rate are ours and therefore absent."""
    config: dict[str, Any] = {
        # Context ranks are data-parallel ranks to it, and it wants the product to agree.
        "train_batch_size": args.train_batch_size * args.context_parallel_size,
        "train_micro_batch_size_per_gpu": args.train_micro_batch_size_per_gpu,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "gradient_clipping": args.gradient_clipping,
        "zero_optimization": _zero_section(args),
        "zero_allow_untested_optimizer": True,
        "data_types": {"grad_accum_dtype": "fp32", **(args.data_types or {})},
        "prescale_gradients": args.prescale_gradients,
        "gradient_predivide_factor": args.gradient_predivide_factor,
        "pipeline": _pipeline_section(),
        "steps_per_print": args.steps_per_print,
        "wall_clock_breakdown": args.wall_clock_breakdown,
        "dump_state": args.dump_state,
    }
    config.update(_precision_section(args))
    if args.communication_data_type is not None:
        config["communication_data_type"] = args.communication_data_type
    for name in ("flops_profiler", "comms_logger", "tensorboard", "csv_monitor"):
        section = getattr(args, name)
        if section is not None:
            config[name] = dict(section)
    config.update(args.deepspeed_extra_args or {})
    return config


def _zero_section(args: NeoXArgs) -> dict[str, Any]:
    section = {**for_deepspeed("zero_optimization", args.zero_optimization), "stage": effective_zero_stage(args)}
    if args.zero_optimization.get("cpu_offload"):
        section.setdefault("offload_optimizer", {"device": "cpu"})
    return section


def _precision_section(args: NeoXArgs) -> dict[str, Any]:
    name = {"fp16": "fp16", "bfloat16": "bf16"}.get(args.precision)
    return {} if name is None else {name: for_deepspeed(name, getattr(args, name))}


def _pipeline_section() -> dict[str, Any]:
    """Recomputation must be non-reentrant (token inputs have no gradient), and what stages exchange must not be divided over tensor
    ranks: under sequence parallelism those already hold different pieces."""
    return {"use_reentrant": False, "pipe_partitioned": False, "grad_partitioned": False}
