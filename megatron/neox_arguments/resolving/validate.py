"""Every check of a configuration, in the order their problems are reported.

`resolve.py` runs each on a draft, so a check that reads a broken key is skipped and the others still run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron.neox_arguments.resolving.checks.batch_ramp import check_batch_ramp
from megatron.neox_arguments.resolving.checks.checkpoints import (
    check_async_save,
    check_checkpoint_exists,
    check_checkpoint_factor,
    check_load_of_another_program,
    check_one_lr_schedule,
    check_something_is_loaded,
)
from megatron.neox_arguments.resolving.checks.compiling import (
    check_compile_with_transformer_engine,
    check_compile_with_zero,
)
from megatron.neox_arguments.resolving.checks.curriculum import (
    check_curriculum,
    check_curriculum_divides,
    check_curriculum_with_gmlp,
)
from megatron.neox_arguments.resolving.checks.data import (
    check_all_data_parts,
    check_companion_paths,
    check_data_is_given,
    check_long_documents_can_be_left_out,
    check_one_data_source,
    check_rewards_are_unpacked,
    check_split,
    check_weights_match_paths,
)
from megatron.neox_arguments.resolving.checks.evaluation import (
    check_evaluation_has_a_model,
    check_evaluation_has_tasks,
    check_example_limit,
    check_include_path,
    check_task_names,
)
from megatron.neox_arguments.resolving.checks.fp8 import (
    check_fp8_heads,
    check_fp8_is_asked_of_one,
    check_fp8_mlp,
    check_fp8_options,
    check_fp8_precision,
    check_fp8_width,
)
from megatron.neox_arguments.resolving.checks.generation import (
    check_a_person_is_heard,
    check_model_is_named,
    check_precomputed_has_a_name,
    check_prompts_are_named,
    check_prompts_exist,
    check_stop_strings,
    check_there_is_something_to_precompute,
)
from megatron.neox_arguments.resolving.checks.guards import check_loss_spike
from megatron.neox_arguments.resolving.checks.hosts import (
    check_hostfile_exists,
    check_include_or_exclude,
    check_launcher_args,
)
from megatron.neox_arguments.resolving.checks.layout import (
    check_context_ranks_have_attention,
    check_gmlp_with_partitioned_activations,
    check_heads_divide_over_context_ranks,
    check_heads_divide_over_tensor_ranks,
    check_mlp_divides_over_tensor_ranks,
    check_offload,
    check_pipeline_has_layers,
    check_selective_recomputation,
    check_sequence_divides_over_context_ranks,
    check_sequence_divides_over_tensor_ranks,
    check_sparse_attention_heads,
    check_zero_with_experts,
    check_zero_with_pipeline,
    check_zero_with_recurrent_mixers,
)
from megatron.neox_arguments.resolving.checks.model import (
    check_attention_kernel,
    check_documents_can_be_kept_apart,
    check_half_precision_loss,
    check_heads_divide_hidden_size,
    check_key_value_heads,
    check_norm_position,
    check_one_mlp_width,
    check_output_bias,
    check_positions_cover_sequence,
    check_query_key_norm,
    check_rotary_channels,
    check_shared_norm,
)
from megatron.neox_arguments.resolving.checks.monitoring import check_wandb_host
from megatron.neox_arguments.resolving.checks.packages import check_packages
from megatron.neox_arguments.resolving.checks.pipeline import check_partition_method
from megatron.neox_arguments.resolving.checks.rope_scaling import check_rope_scaling, check_scaling_has_rotations
from megatron.neox_arguments.resolving.checks.run import (
    check_decay_length,
    check_iteration_bound_optimizer,
    check_learning_rates,
    check_run_length,
)
from megatron.neox_arguments.resolving.checks.sections import check_extra_deepspeed_keys
from megatron.neox_arguments.resolving.checks.stopping import check_elastic, check_restarts, check_time_limit
from megatron.neox_arguments.resolving.checks.stores import (
    check_buckets,
    check_part_size,
    check_upload,
)
from megatron.neox_arguments.resolving.checks.tokenizer import check_end_of_document, check_tokenizer_files
from megatron.neox_arguments.resolving.checks.validation_sets import check_validation_sets
from megatron.neox_arguments.resolving.checks.without_deepspeed import check_without_deepspeed
from megatron.neox_arguments.resolving.unsupported import (
    check_attention_types,
    check_runtime_keys,
)

CHECKS: tuple[Callable[[Any], None], ...] = (
    check_runtime_keys,
    check_attention_types,
    check_launcher_args,
    check_zero_with_pipeline,
    check_zero_with_experts,
    check_zero_with_recurrent_mixers,
    check_gmlp_with_partitioned_activations,
    check_offload,
    check_selective_recomputation,
    check_compile_with_zero,
    check_compile_with_transformer_engine,
    check_sparse_attention_heads,
    check_pipeline_has_layers,
    check_partition_method,
    check_heads_divide_over_tensor_ranks,
    check_mlp_divides_over_tensor_ranks,
    check_sequence_divides_over_tensor_ranks,
    check_sequence_divides_over_context_ranks,
    check_heads_divide_over_context_ranks,
    check_context_ranks_have_attention,
    check_heads_divide_hidden_size,
    check_key_value_heads,
    check_positions_cover_sequence,
    check_rotary_channels,
    check_rope_scaling,
    check_scaling_has_rotations,
    check_one_mlp_width,
    check_shared_norm,
    check_query_key_norm,
    check_norm_position,
    check_output_bias,
    check_attention_kernel,
    check_documents_can_be_kept_apart,
    check_half_precision_loss,
    check_fp8_is_asked_of_one,
    check_fp8_options,
    check_fp8_precision,
    check_fp8_width,
    check_fp8_heads,
    check_fp8_mlp,
    check_run_length,
    check_iteration_bound_optimizer,
    check_learning_rates,
    check_decay_length,
    check_batch_ramp,
    check_curriculum,
    check_curriculum_divides,
    check_curriculum_with_gmlp,
    check_one_data_source,
    check_all_data_parts,
    check_weights_match_paths,
    check_validation_sets,
    check_companion_paths,
    check_rewards_are_unpacked,
    check_long_documents_can_be_left_out,
    check_split,
    check_end_of_document,
    check_checkpoint_factor,
    check_async_save,
    check_upload,
    check_buckets,
    check_part_size,
    check_one_lr_schedule,
    check_something_is_loaded,
    check_evaluation_has_tasks,
    check_evaluation_has_a_model,
    check_example_limit,
    check_task_names,
    check_stop_strings,
    check_prompts_are_named,
    check_a_person_is_heard,
    check_precomputed_has_a_name,
    check_there_is_something_to_precompute,
    check_loss_spike,
    check_time_limit,
    check_restarts,
    check_elastic,
    check_extra_deepspeed_keys,
    check_without_deepspeed,
    check_wandb_host,
)
"""Every check on derived arguments, in the order their problems are reported."""

RUN_CHECKS: tuple[Callable[[Any], None], ...] = (
    check_data_is_given,
    check_tokenizer_files,
    check_include_path,
    check_packages,
    check_model_is_named,
    check_load_of_another_program,
    check_checkpoint_exists,
    check_prompts_exist,
)
"""Checks of what lies on this machine; not made while planning, when nothing will run."""

HOST_CHECKS: tuple[tuple[Callable[[Any], None], tuple[str, ...]], ...] = (
    (check_hostfile_exists, ("hostfile",)),
    (check_include_or_exclude, ("include", "exclude")),
)
"""Checks before hosts and devices are looked for, and the keys that cannot be used for that when they fail."""
