"""What a configuration uses beyond the plain default model, as names: two configurations with the same names differ in sizes only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.keys.types import ComponentName
from megatron.neox_arguments.resolving.unsupported import is_off

_NAMED_OTHERWISE = frozenset(
    {"optimizer", "zero_optimization", "fp16", "bf16", "world_size", "launcher", "config_files"}
)
"""Keys that say the same as others (`optimizer_type`, `precision`, ...) or where a run takes place."""

SIZES: dict[str, Callable[[NeoXArgs], bool]] = {
    "tensor parallelism": lambda args: args.model_parallel_size > 1,
    "context parallelism": lambda args: args.context_parallel_size > 1,
    "several pipeline stages": lambda args: args.pipeline_stages > 1,
    "grouped-query attention": lambda args: 1 < args.num_kv_heads < args.num_attention_heads,
    "multi-query attention": lambda args: args.num_kv_heads == 1 < args.num_attention_heads,
    "head_dim other than hidden_size / num_attention_heads": lambda args: (
        args.head_dim != max(args.hidden_size // args.num_attention_heads, 1)
    ),
    "partial rotation": lambda args: args.pos_emb == "rotary" and args.rotary_pct < 1,
    "positions beyond the sequence": lambda args: args.max_position_embeddings > args.seq_length,
    "position offset": lambda args: args.opt_pos_emb_offset > 0,
    "sliding window": lambda args: (args.sliding_window_width or args.seq_length) < args.seq_length,
    "rounded MLP width": lambda args: args.mlp_multiple_of > 1,
    "mixture of experts": lambda args: args.moe_num_experts > 1,
    "several experts a token": lambda args: args.moe_num_experts > 1 and args.moe_top_k > 1,
    "dense layers between mixtures": lambda args: args.moe_num_experts > 1 and args.moe_expert_interval > 1,
    "blocks that share weights": lambda args: (args.num_unique_layers or args.num_layers) < args.num_layers,
    "several blocks recomputed together": lambda args: (
        args.checkpoint_activations and min(args.checkpoint_num_layers, args.num_layers) > 1
    ),
    "hidden dropout": lambda args: args.hidden_dropout > 0,
    "attention dropout": lambda args: args.attention_dropout > 0,
    "batch ramp-up": lambda args: args.rampup_batch_size is not None,
    "gradient accumulation": lambda args: args.gradient_accumulation_steps > 1,
    "warm-up": lambda args: args.warmup > 0,
    "a floor under the learning rate": lambda args: args.min_lr > 0,
    "weight decay": lambda args: args.weight_decay > 0,
    "gradient clipping": lambda args: args.gradient_clipping > 0,
}
"""Features that are told by numbers."""


def features(args: NeoXArgs) -> frozenset[str]:
    """Names of everything that `args` uses: attention types, switches, choices and sections that differ from their defaults, and SIZES."""
    return frozenset(
        [
            f"ZeRO stage {args.zero_stage}",
            *(f"attention {name}" for name in args.attention_config),
            *(name for name, used in SIZES.items() if used(args)),
            *_from_fields(args),
        ]
    )


def _from_fields(args: NeoXArgs) -> Iterator[str]:
    for key, field in type(args).model_fields.items():
        value = getattr(args, key)
        if key in _NAMED_OTHERWISE or value is None or value == field.default:
            continue
        if isinstance(value, bool) or _is_choice(field.annotation, field.metadata):
            yield f"{key}: {value}"
        elif isinstance(value, Mapping) and not is_off(value, field.default):
            yield f"{key}: {value['type']}" if "type" in value else key


def _is_choice(annotation: Any, metadata: list[Any]) -> bool:
    """Whether a key's value is one of a list of names."""
    options = [annotation, *get_args(annotation)]
    return any(get_origin(option) is Literal for option in options) or any(
        isinstance(item, ComponentName) for item in metadata
    )
