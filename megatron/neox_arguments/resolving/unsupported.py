"""What this release does not build yet: one table a later release empties. Nothing here is silently ignored.

NOT_BUILT       keys whose feature is missing: any value but the default is refused
ALSO_BUILT      values of such keys that are fine although they are not the default
RUNTIME         keys that saved configs hold but only running programs set: refused when they have a value
WITHOUT_EFFECT  keys that are accepted although nothing changes, because they never change numbers; mentioned in the summary
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from megatron.components import ATTENTION, NORMS, OBJECTIVES, OPTIMIZERS, POSITIONS
from megatron.errors import ConfigError
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.keys.planned import PLANNED
from megatron.neox_arguments.reading.values import quote
from megatron.registry import Registry, did_you_mean

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

_POST_TRAINING = "training from preferences and rewards"
_ONLINE = "online data"
_DELAYED_SCALING = "scaling fp8 by earlier steps (each tensor is scaled by its own largest value)"
_MUP = "maximal update parametrisation"
_EXPERTS = "mixture of experts"
_NOISE = "the gradient noise scale"
_MEMORY = "memory profiling"

NOT_BUILT: dict[str, str] = {
    # model
    "sparsity_config": "sparse attention",
    "num_unique_layers": "sharing weights between blocks",
    "param_sharing_style": "sharing weights between blocks",
    "rotary_save_freqs_buffer": "saving rotation frequencies",
    "fp16_lm_cross_entropy": "computing the loss in fp16 (it is computed in fp32)",
    "soft_prompt_tuning": "soft prompt tuning",
    "onnx_safe": "ONNX export",
    **dict.fromkeys(("dim_att", "head_size", "ffn_dim"), "RWKV"),
    **dict.fromkeys(("mamba_selective_scan_fusion", "mamba_causal_conv_fusion", "mamba_inner_func_fusion"), "Mamba"),
    **dict.fromkeys(("mamba_use_bias_in_linears", "mamba_selective_fp32_params", "mamba_use_bias_in_conv"), "Mamba"),
    "te_fp8_wgrad": "Transformer Engine without fp8 for weight gradients alone (it has no such switch; fp8 with fp8_wgrad: false has)",
    "te_fp8_mha": "Transformer Engine's attention in fp8",
    **dict.fromkeys(("te_fp8_amax_history_len", "te_fp8_amax_compute_algo", "te_fp8_margin"), _DELAYED_SCALING),
    **dict.fromkeys(("use_mup", "coord_check", "save_base_shapes", "base_shapes_file"), _MUP),
    **dict.fromkeys(("mup_init_scale", "mup_attn_temp", "mup_output_temp", "mup_embedding_mult"), _MUP),
    **dict.fromkeys(("mup_rp_embedding_mult", "mup_width_scale"), _MUP),
    # mixture of experts
    **dict.fromkeys(("moe_num_experts", "moe_expert_interval", "moe_top_k", "moe_router_type"), _EXPERTS),
    **dict.fromkeys(("moe_lbl_in_fp32", "moe_jitter_eps"), _EXPERTS),
    # data
    "data_impl": "the format before mmap",
    "short_seq_prob": "masked-language-model data",
    **dict.fromkeys(("train_reward_data_paths", "valid_reward_data_paths", "test_reward_data_paths"), "reward data"),
    **{
        f"{sign}_{part}{label}_data_paths": "pairwise data"
        for sign in ("pos", "neg")
        for part in ("train", "valid", "test")
        for label in ("", "_label")
    },
    # objectives
    "z_loss": "the z-loss",
    "dataset_impl": "data other than plain text",
    **dict.fromkeys(("dpo_fp32", "dpo_reference_free", "dpo_beta"), _POST_TRAINING),
    **dict.fromkeys(("kto_fp32", "kto_desirable_weight", "kto_undesirable_weight", "kto_beta"), _POST_TRAINING),
    **dict.fromkeys(("fp32_reinforce", "kl_impl", "kl_div_beta", "reinforce_leave_one_out"), _POST_TRAINING),
    "serve_model_weights": _ONLINE,
    **dict.fromkeys(("weight_server_port", "online_dataserver_ips", "online_dataserver_ports"), _ONLINE),
    # memory and speed
    "contiguous_checkpointing": "one buffer for kept activations (PYTORCH_ALLOC_CONF=expandable_segments:True helps against fragmented memory)",
    "profile_backward": "timing recomputed layers",
    "zero_optimization.offload_param": "keeping weights in host memory (offload_optimizer keeps optimizer states there)",
    "zero_optimization.cpu_offload_param": "keeping weights in host memory (offload_optimizer keeps optimizer states there)",
    "use_bnb_optimizer": "an 8-bit optimizer",
    "lazy_mpu_init": "delayed process groups",
    # monitoring
    "log_param_norm": "logging parameter norms",
    "log_grad_pct_zeros": "logging zeros in gradients",
    "log_optimizer_states": "logging optimizer states",
    "log_gradient_noise_scale": _NOISE,
    "gradient_noise_scale_n_batches": _NOISE,
    "gradient_noise_scale_cpu_offload": _NOISE,
    "memory_profiling": _MEMORY,
    "memory_profiling_path": _MEMORY,
    "profile": "profiling",
    "profile_step_start": "profiling",
    "profile_step_stop": "profiling",
    # DeepSpeed
    "wandb": "DeepSpeed's copy of its metrics at Weights & Biases (use_wandb has all metrics)",
    "amp": "apex mixed precision (use precision)",
    "scheduler": "a schedule of DeepSpeed's (use the lr_* keys)",
    "activation_checkpointing": "DeepSpeed's recomputation (use checkpoint_activations)",
    "sparse_attention": "sparse attention",
    "sparse_gradients": "sparse gradients",
    "data_efficiency": "DeepSpeed's data sampling",
    "autotuning": "autotuning",
    "autotuning_run": "autotuning",
    "elasticity": "DeepSpeed's elastic training (its authors have removed it; with elastic: true a run goes on with fewer machines)",
    "compression_training": "compression",
    "checkpoint": "DeepSpeed's own checkpointing (ours fits every layout)",
    # long gone
    "deepscale": "DeepScale (it became DeepSpeed)",
    "deepscale_config": "DeepScale (it became DeepSpeed)",
    "adlr_autoresume": "ADLR autoresume",
    "adlr_autoresume_interval": "ADLR autoresume",
}

ALSO_BUILT: dict[str, tuple[Any, ...]] = {
    "data_impl": ("mmap",),
    "te_fp8_amax_compute_algo": ("max",),  # of a history of one step: the same
}

RUNTIME: tuple[str, ...] = (
    *("tokenizer", "tensorboard_writer", "comet_experiment", "adlr_autoresume_object"),
    *("do_train", "do_valid", "do_test"),
)

WITHOUT_EFFECT: dict[str, str] = {
    "synchronize_each_layer": "it would only slow training down",
    "fused_kernels_build_path": "nothing is compiled when training starts",
    "log_grad_norm": "the global gradient norm is always logged, norms of single gradients are not yet",
    "no_save_rng": "random numbers are a function of seed and iteration, there is no state to save",
    "no_load_rng": "random numbers are a function of seed and iteration, there is no state to load",
    "padded_vocab_size": "a run counts the rows itself, by the tokenizer and make_vocab_size_divisible_by",
    "curriculum_seqlen": "the sequence length of a step follows from curriculum_learning and the iteration",
}


@dataclass(frozen=True)
class NotBuilt:
    """A feature that is asked for and missing: its name, the keys that ask for it, and the reason with the way out."""

    feature: str
    keys: tuple[str, ...]
    reason: str


def is_off(value: Any, default: Any) -> bool:
    """Whether a value asks for nothing: the default, absent, false, or a section that is not enabled."""
    if value is None or value == default:
        return True
    if value is False:
        return default is not True
    if isinstance(value, tuple | str):
        return default is None and not value
    if isinstance(value, Mapping):
        return not value or value.get("enabled") is False or value.get("device") == "none"
    return False


_BY_REGISTRY: dict[str, Registry] = {
    "norm": NORMS,
    "pos_emb": POSITIONS,
    "optimizer_type": OPTIMIZERS,
    "train_impl": OBJECTIVES,
}


def features_not_built(args: Draft) -> Iterator[NotBuilt]:
    """Features that the configuration asks for and this release lacks, each with all keys that ask for it."""
    by_feature: dict[str, list[str]] = {}
    for path, feature in NOT_BUILT.items():
        key, _, inner = path.partition(".")
        if key in args.broken or key not in args.given:
            continue
        value = args.values[key].get(inner) if inner else args.values[key]
        if not is_off(value, None if inner else args.default(key)) and value not in ALSO_BUILT.get(path, ()):
            by_feature.setdefault(feature, []).append(path)
    for feature, paths in by_feature.items():
        yield NotBuilt(feature, tuple(paths), f"{feature} is not supported yet; {_way_out(args, paths)}")


def components_not_built(args: Draft) -> Iterator[NotBuilt]:
    """Names chosen from the menu that are not on it; a default that is not (yet) counts only when a script is run."""
    for key, registry in _BY_REGISTRY.items():
        if key in args.broken or args.values[key] in registry:
            continue
        if args.values[key] != args.default(key) or args.values["user_script"]:
            feature = f'{registry.what} "{args.values[key]}"'
            yield NotBuilt(
                feature, (key,), f"{feature} is not supported yet; choose one of {', '.join(registry.names)}"
            )


def attention_types_not_built(args: Draft) -> Iterator[NotBuilt]:
    """Attention types that are known but lack their code."""
    if "attention_config" in args.broken:
        return
    for name in dict.fromkeys(args.attention_config):
        if name in PLANNED["attention_config"] and name not in ATTENTION:
            feature = f'attention type "{name}"'
            yield NotBuilt(
                feature,
                ("attention_config",),
                f"{feature} is not supported yet; choose among {', '.join(ATTENTION.names)}",
            )


def not_built(args: Draft) -> tuple[NotBuilt, ...]:
    """Everything that the configuration asks for and this release lacks."""
    return (*features_not_built(args), *components_not_built(args), *attention_types_not_built(args))


def check_runtime_keys(args: Draft) -> None:
    """Keys that only running programs set have no value."""
    problems = [
        args.describe((key,), "only running programs set it, it is not supported in a config; remove it")
        for key in RUNTIME
        if key not in args.broken and args.values[key] is not None
    ]
    if problems:
        raise ConfigError(problems)


def _way_out(args: Draft, paths: list[str]) -> str:
    if len(paths) > 1:
        return "remove these keys"
    default = None if "." in paths[0] else args.default(paths[0])
    return "remove the key" if default is None else f"remove the key or set it to {quote(default)}"


def check_attention_types(args: Draft) -> None:
    """Every attention type is known."""
    known = (*ATTENTION.names, *PLANNED["attention_config"])
    for name in dict.fromkeys(args.attention_config):
        if name not in known:
            hint = did_you_mean(name, known)
            raise Conflict(
                (args.source.find("attention_config", name),),
                f'"{name}" is not an attention type{hint}; choose among {", ".join(ATTENTION.names)}',
            )
