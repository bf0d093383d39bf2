"""Keys that DeepSpeed 0.19.8 knows in its sections. It refuses others with a traceback, so they are checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from megatron.neox_arguments.values import quote
from megatron.registry import did_you_mean

KNOWN: dict[str, frozenset[str]] = {
    "fp16": frozenset(
        {
            *("enabled", "auto_cast", "loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis"),
            *("consecutive_hysteresis", "min_loss_scale", "fp16_master_weights_and_grads"),
        }
    ),
    "bf16": frozenset(
        {
            *("enabled", "immediate_grad_update", "check_grad_overflow", "bf16_master_weights_and_grads"),
            "bf16_optimizer_states",
        }
    ),
    "zero_optimization": frozenset(
        {
            *("stage", "contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "allgather_partitions"),
            *("allgather_bucket_size", "overlap_comm", "use_multi_rank_bucket_allreduce", "compute_grad_norm"),
            *("load_from_fp32_weights", "elastic_checkpoint", "offload_param", "offload_optimizer", "zenflow"),
            *("sub_group_size", "cpu_offload_param", "cpu_offload_use_pin_memory", "cpu_offload"),
            *("stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "stage3_max_live_parameters"),
            *("stage3_model_persistence_threshold", "stage3_max_reuse_distance", "stage3_module_granularity_threshold"),
            *("stage3_gather_16bit_weights_on_model_save", "stage3_use_all_reduce_for_fetch_params"),
            *("stage3_allgather_sequential", "stage3_gather_fp16_weights_on_model_save", "ignore_unused_parameters"),
            *("legacy_stage1", "round_robin_gradients", "parameter_alignment", "zero_hpz_partition_size"),
            *("zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients"),
            *("memory_efficient_linear", "pipeline_loading_checkpoint", "override_module_apply"),
            *("log_trace_cache_warnings", "enable_sanity_checks", "save_muon_momentum_buffer_in_memory", "leaf_module"),
        }
    ),
    "data_types": frozenset({"grad_accum_dtype"}),
    "optimizer": frozenset({"type", "params"}),
}

LEGACY: dict[str, frozenset[str]] = {
    # Old DeepSpeed ignored what it did not know, so published configs hold these.
    "fp16": frozenset({"fp16", "bf16", "type"}),
    "bf16": frozenset(
        {"bf16", "fp16", "loss_scale", "loss_scale_window", "hysteresis", "min_loss_scale", "initial_scale_power"}
    ),
    "zero_optimization": frozenset({"cpu_offload", "cpu_offload_param", "cpu_offload_use_pin_memory", "legacy_stage1"}),
}
"""Keys that are accepted and left out of what DeepSpeed gets."""


def unknown_section_keys(section: str, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key path, reason) of every key in a section that DeepSpeed would refuse."""
    known = KNOWN[section]
    for key in written:
        if key not in known | LEGACY.get(section, frozenset()):
            yield f"{section}.{key}", f"{quote(section)} has no such key{did_you_mean(key, sorted(known))}"


def for_deepspeed(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section that DeepSpeed takes."""
    return {key: value for key, value in values.items() if key in KNOWN[section] - LEGACY.get(section, frozenset())}
