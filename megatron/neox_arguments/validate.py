"""What must hold between keys. Each check is one rule: it reads finished arguments and raises `Conflict` with the keys and the fix.

`resolve.py` runs every check on a draft, so a check that reads a broken key is skipped and the others still run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.errors import ConfigError
from megatron.neox_arguments.derive import Conflict, nearest_multiples
from megatron.neox_arguments.sections import unknown_section_keys
from megatron.neox_arguments.unsupported import (
    check_attention_types,
    check_components_are_built,
    check_features_are_built,
)

if TYPE_CHECKING:
    from megatron.neox_arguments.draft import Draft

PARTS = ("train", "valid", "test")
MIXERS_WITHOUT_HEADS = ("mamba", "rwkv", "gmlp")
SPARSE_ATTENTION = ("local", "sparse_fixed", "sparse_variable", "bigbird", "bslongformer")


def needs_training_keys(args: Draft) -> bool:
    """Whether the script being run trains; generate.py and eval.py do without batch sizes and train_iters."""
    return Path(args.user_script or "train.py").name not in ("generate.py", "eval.py")


def check_section_keys(args: Draft) -> None:
    """DeepSpeed's sections hold only keys that it knows."""
    problems = []
    for section in ("fp16", "bf16", "zero_optimization", "data_types", "optimizer"):
        if section in args.given and section not in args.broken:
            unknown = unknown_section_keys(section, args.source.values[section])
            problems += [f"{args.locate(path)}: {reason}" for path, reason in unknown]
    if problems:
        raise ConfigError(problems)


# --- parallelism ------------------------------------------------------------------------------------------------------------------


def check_zero_with_pipeline(args: Draft) -> None:
    """Pipelines keep gradients over several micro-batches, which ZeRO 2 and 3 would have to divide after each."""
    if args.zero_stage >= 2 and args.pipeline_stages > 1:
        raise Conflict(
            ("zero_stage", "pipe_parallel_size"),
            "ZeRO 2 and 3 do not work with more than one pipeline stage; set the stage to 1, or pipe_parallel_size to 0",
        )


def check_zero_with_experts(args: Draft) -> None:
    """Experts have data-parallel groups of their own, which ZeRO 2 and 3 do not know."""
    if args.zero_stage >= 2 and args.moe_num_experts > 1:
        raise Conflict(
            ("zero_stage", "moe_num_experts"), "mixture of experts works with ZeRO 0 and 1; set the stage to 1"
        )


def check_zero_with_recurrent_mixers(args: Draft) -> None:
    """Mamba and RWKV read weights outside their modules' forward, where ZeRO 3 has not gathered them."""
    if args.zero_stage == 3 and {"mamba", "rwkv"} & set(args.attention_config):
        raise Conflict(("zero_stage", "attention_config"), "Mamba and RWKV work with ZeRO 0 to 2; set the stage to 2")


def check_gmlp_with_partitioned_activations(args: Draft) -> None:
    """gMLP's gate needs the whole activation."""
    if args.partition_activations and {"gmlp", "amlp"} & set(args.attention_config):
        raise Conflict(("attention_config", "partition_activations"), "gMLP and aMLP need partition_activations: false")


def check_sparse_attention_heads(args: Draft) -> None:
    """Sparse kernels know no shared key/value heads."""
    if args.num_kv_heads != args.num_attention_heads and set(SPARSE_ATTENTION) & set(args.attention_config):
        raise Conflict(
            ("attention_config", "num_kv_heads", "num_attention_heads"),
            f"sparse attention needs as many key/value heads as query heads; set num_kv_heads to {args.num_attention_heads}",
        )


def check_pipeline_has_layers(args: Draft) -> None:
    """Each pipeline stage has at least one block."""
    if args.pipeline_stages > args.num_layers:
        raise Conflict(
            ("pipe_parallel_size", "num_layers"), f"each stage needs a layer; use at most {args.num_layers} stages"
        )


def check_heads_divide_over_tensor_ranks(args: Draft) -> None:
    """Each tensor rank has whole heads."""
    size = args.model_parallel_size
    for key in ("num_attention_heads", "num_kv_heads"):
        if getattr(args, key) % size:
            raise Conflict(
                (key, "model_parallel_size"),
                f"each of {size} tensor ranks needs whole heads; use {nearest_multiples(getattr(args, key), size)}",
            )


def check_mlp_divides_over_tensor_ranks(args: Draft) -> None:
    """Each tensor rank has an equal part of the MLP."""
    if args.mlp_width % args.model_parallel_size:
        raise Conflict(
            ("intermediate_size", "mlp_multiple_of", "model_parallel_size"),
            f"the MLP width {args.mlp_width} does not divide over {args.model_parallel_size} tensor ranks; "
            f"set mlp_multiple_of to a multiple of {args.model_parallel_size}",
        )


def check_sequence_divides_over_tensor_ranks(args: Draft) -> None:
    """Sequence parallelism gives each tensor rank an equal piece of the sequence."""
    if args.sequence_parallel and args.seq_length % args.model_parallel_size:
        raise Conflict(
            ("seq_length", "sequence_parallel", "model_parallel_size"),
            f"the sequence does not divide over {args.model_parallel_size} tensor ranks; "
            f"use {nearest_multiples(args.seq_length, args.model_parallel_size)} tokens or switch sequence_parallel off",
        )


# --- model ------------------------------------------------------------------------------------------------------------------------


def check_heads_divide_hidden_size(args: Draft) -> None:
    """Heads have a whole number of channels."""
    if set(args.attention_config) <= set(MIXERS_WITHOUT_HEADS):
        return
    if args.hidden_size % args.num_attention_heads:
        raise Conflict(
            ("hidden_size", "num_attention_heads"),
            f"the heads do not divide the width; set hidden_size to {nearest_multiples(args.hidden_size, args.num_attention_heads)}",
        )


def check_key_value_heads(args: Draft) -> None:
    """Query heads are shared out evenly among key/value heads."""
    heads = args.num_attention_heads
    if heads % args.num_kv_heads:
        legal = [str(count) for count in range(1, heads + 1) if heads % count == 0]
        raise Conflict(
            ("num_kv_heads", "num_attention_heads"),
            f"num_kv_heads must divide {heads}: choose one of {', '.join(legal)}",
        )


def check_positions_cover_sequence(args: Draft) -> None:
    """There is a position for every token of a sample."""
    if args.seq_length > args.max_position_embeddings:
        raise Conflict(
            ("seq_length", "max_position_embeddings"),
            f"samples are longer than the positions; set max_position_embeddings to at least {args.seq_length}",
        )


def check_rotary_channels(args: Draft) -> None:
    """Rotation works on pairs of channels."""
    if args.pos_emb != "rotary" or args.hidden_size % args.num_attention_heads:
        return
    channels = int(args.head_dim * args.rotary_pct)
    if channels % 2 or channels == 0:
        nearest = max(channels - channels % 2, 2) / args.head_dim
        raise Conflict(
            ("rotary_pct", "hidden_size", "num_attention_heads"),
            f"{channels} of the {args.head_dim} channels of a head would be rotated, which must be an even number above 0; "
            f"set rotary_pct to {nearest:g}",
        )


def check_one_mlp_width(args: Draft) -> None:
    """The MLP width is written one way."""
    if (
        args.intermediate_size
        and args.expansion_factor
        and args.intermediate_size != int(args.expansion_factor * args.hidden_size)
    ):
        raise Conflict(
            ("intermediate_size", "expansion_factor", "hidden_size"),
            "these give different MLP widths; keep intermediate_size",
        )


def check_shared_norm(args: Draft) -> None:
    """Only parallel residuals can share a norm."""
    if args.gpt_j_tied and not args.gpt_j_residual:
        raise Conflict(("gpt_j_tied", "gpt_j_residual"), "sharing the norm needs gpt_j_residual: true")


def check_half_precision_loss(args: Draft) -> None:
    """The fp16 loss belongs to fp16 training."""
    if args.fp16_lm_cross_entropy and args.precision != "fp16":
        raise Conflict(("fp16_lm_cross_entropy", "precision"), "only possible with precision fp16; set it to false")


# --- run and data -----------------------------------------------------------------------------------------------------------------


def check_run_length(args: Draft) -> None:
    """Exactly one of train_iters and train_epochs."""
    keys = ("train_iters", "train_epochs")
    if args.train_iters is not None and args.train_epochs is not None:
        raise Conflict(keys, "these are two lengths of one run; keep one of them")
    if args.train_iters is None and args.train_epochs is None and needs_training_keys(args):
        raise Conflict(keys, "one of the two is needed; give train_iters, the number of optimizer steps")


def check_iteration_bound_optimizer(args: Draft) -> None:
    """1-bit Adam changes its method at an iteration counted from the end."""
    if args.optimizer_type == "onebitadam" and args.train_iters is None:
        raise Conflict(
            ("optimizer_type", "train_iters"), "OneBitAdam needs train_iters; give it instead of train_epochs"
        )


def check_learning_rates(args: Draft) -> None:
    """The floor of the learning rate lies below its peak."""
    if args.min_lr > args.lr:
        raise Conflict(
            ("min_lr", "lr"),
            f"the floor is above the peak; set min_lr to {args.lr / 10:g}, a tenth of the peak, or less",
        )


def check_decay_length(args: Draft) -> None:
    """The length of the decay is written one way."""
    if args.lr_decay_iters is not None and args.lr_decay_fraction is not None:
        raise Conflict(("lr_decay_iters", "lr_decay_fraction"), "these are two lengths of one decay; keep one of them")


def check_one_data_source(args: Draft) -> None:
    """Data comes either from one dataset that is split, or from lists."""
    if args.data_path is not None:
        for part in PARTS:
            if getattr(args, f"{part}_data_paths") is not None:
                raise Conflict(("data_path", f"{part}_data_paths"), "these are two ways to give data; keep one of them")


def check_all_data_parts(args: Draft) -> None:
    """Lists of datasets are given for all three parts or for none."""
    keys = [f"{part}_data_paths" for part in PARTS]
    missing = [key for key in keys if not getattr(args, key)]
    if missing and len(missing) < len(keys):
        present = [key for key in keys if key not in missing]
        raise Conflict((*present, *missing), f"give {' and '.join(missing)} as well, or use data_path with split")


def check_data_is_given(args: Draft) -> None:
    """Training has data (checked when the training script is run)."""
    if (
        args.user_script
        and needs_training_keys(args)
        and not args.data_path
        and not args.train_data_paths
        and args.dataset_impl == "gpt2"
    ):
        raise Conflict(
            ("data_path", "train_data_paths"), "training needs data; give data_path, the prefix of a tokenised dataset"
        )


def check_weights_match_paths(args: Draft) -> None:
    """There is a weight for each dataset, and not all are 0."""
    for part in PARTS:
        key, paths = f"{part}_data_weights", getattr(args, f"{part}_data_paths")
        weights = getattr(args, key)
        if weights is None:
            continue
        if len(weights) != len(paths or ()):
            raise Conflict(
                (key, f"{part}_data_paths"),
                f"there are {len(weights)} weights for {len(paths or ())} datasets; give one each",
            )
        if min(weights) < 0 or sum(weights) <= 0:
            raise Conflict((key,), "weights must be at least 0, and one of them more")


def check_companion_paths(args: Draft) -> None:
    """Label and reward datasets stand beside the datasets they belong to."""
    for part in PARTS:
        paths = getattr(args, f"{part}_data_paths") or ()
        for kind in ("label", "reward"):
            key = f"{part}_{kind}_data_paths"
            companions = getattr(args, key)
            if companions is not None and len(companions) != len(paths):
                fix = (
                    f"give {part}_data_paths with one dataset for each"
                    if not paths
                    else f"give {len(paths)}, one for each dataset"
                )
                raise Conflict((key, f"{part}_data_paths"), fix)


def check_rewards_are_unpacked(args: Draft) -> None:
    """A reward belongs to a whole document, so documents may not be cut."""
    for part in PARTS:
        key = f"{part}_reward_data_paths"
        if getattr(args, key) is not None and args.pack_impl != "unpacked":
            raise Conflict((key, "pack_impl"), "rewards belong to whole documents; set pack_impl to unpacked")


def check_split(args: Draft) -> None:
    """The split is up to three numbers, not all 0."""
    try:
        shares = [float(share) for share in args.split.replace("/", ",").split(",")]
    except ValueError:
        shares = []
    if not 1 <= len(shares) <= 3 or min(shares) < 0 or sum(shares) <= 0:
        raise Conflict(
            ("split",),
            'expected up to three numbers of at least 0, for train, validation and test, such as "969, 30, 1"',
        )


# --- checkpoints, hosts -----------------------------------------------------------------------------------------------------------


def check_checkpoint_factor(args: Draft) -> None:
    """The factor suits the scale."""
    factor = args.checkpoint_factor
    if factor is None:
        return
    if args.checkpoint_scale == "log" and factor <= 1:
        raise Conflict(
            ("checkpoint_factor", "checkpoint_scale"), "on a log scale the factor must be above 1, such as 2"
        )
    if args.checkpoint_scale == "linear" and factor != int(factor):
        raise Conflict(
            ("checkpoint_factor", "checkpoint_scale"),
            f"on a linear scale this is a whole number of iterations, such as {max(round(factor), 1)}",
        )


def check_checkpoint_exists(args: Draft) -> None:
    """What should be loaded is there, so that no run starts from random weights by accident."""
    if args.load is None or args.load_if_exists or "://" in args.load:
        return
    folder = Path(args.load)
    if (
        not (folder / "latest").is_file()
        and not any(folder.glob("global_step*"))
        and not folder.name.startswith("global_step")
    ):
        state = "holds no checkpoint" if folder.is_dir() else "does not exist"
        raise Conflict(
            ("load",),
            f"this directory {state}; correct the path, or set load_if_exists to true to start from the beginning",
        )


def check_hostfile_exists(args: Draft) -> None:
    """A hostfile that is named can be read."""
    if args.hostfile is not None and not Path(args.hostfile).is_file():
        raise Conflict(
            ("hostfile",), "this file does not exist; correct the path, or remove the key to use this machine only"
        )


def check_include_or_exclude(args: Draft) -> None:
    """Hosts are chosen by naming those to use or those not to."""
    if args.include and args.exclude:
        raise Conflict(("include", "exclude"), "only one of the two can be given; remove exclude")


def check_extra_deepspeed_keys(args: Draft) -> None:
    """A DeepSpeed key that is also one of ours is written as ours."""
    for key in args.deepspeed_extra_args or {}:
        if key in args.values and key != "comms_logger":
            raise Conflict(
                (f"deepspeed_extra_args.{key}",), f'"{key}" is a key of its own; move it out of deepspeed_extra_args'
            )


CHECKS: tuple[Callable[[Any], None], ...] = (
    check_features_are_built,
    check_components_are_built,
    check_attention_types,
    check_section_keys,
    check_zero_with_pipeline,
    check_zero_with_experts,
    check_zero_with_recurrent_mixers,
    check_gmlp_with_partitioned_activations,
    check_sparse_attention_heads,
    check_pipeline_has_layers,
    check_heads_divide_over_tensor_ranks,
    check_mlp_divides_over_tensor_ranks,
    check_sequence_divides_over_tensor_ranks,
    check_heads_divide_hidden_size,
    check_key_value_heads,
    check_positions_cover_sequence,
    check_rotary_channels,
    check_one_mlp_width,
    check_shared_norm,
    check_half_precision_loss,
    check_run_length,
    check_iteration_bound_optimizer,
    check_learning_rates,
    check_decay_length,
    check_one_data_source,
    check_all_data_parts,
    check_data_is_given,
    check_weights_match_paths,
    check_companion_paths,
    check_rewards_are_unpacked,
    check_split,
    check_checkpoint_factor,
    check_checkpoint_exists,
    check_extra_deepspeed_keys,
)
"""Every check on derived arguments, in the order their problems are reported."""

HOST_CHECKS: tuple[tuple[Callable[[Any], None], tuple[str, ...]], ...] = (
    (check_hostfile_exists, ("hostfile",)),
    (check_include_or_exclude, ("include", "exclude")),
)
"""Checks before hosts and devices are looked for, and the keys that cannot be used for that when they fail."""
