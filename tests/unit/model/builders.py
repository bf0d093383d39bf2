"""Small models for tests: arguments with short defaults, and weights in which every parameter, biases and gains included, matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from megatron.model.dropout_keys import DropoutKeys
from megatron.model.gpt import build_layer_specs
from megatron.model.init_methods import build_init_method
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.random_bits import sample_keys
from megatron.mpu.shard import InitMethod, initialize_parameters, name_parameters, set_shard, shard_of
from megatron.neox_arguments import NeoXArgs

VOCAB_SIZE = 59  # not a multiple of anything: padding is always there
FP64 = BuildContext(dtype=torch.float64)
NORMAL = build_init_method("normal", std=0.3, num_layers=1, hidden_size=1)

DEFAULTS: Mapping[str, Any] = {
    "num_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "seq_length": 16,
    "max_position_embeddings": 16,
    "train_iters": 1,
    "train_micro_batch_size_per_gpu": 2,
    "init_method_std": 0.1,
}

# One entry for each thing a block can be; together they use every component of this package.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {},
    "gpt2 with no biases": {"use_bias_in_norms": False, "use_bias_in_attn_linear": False, "use_bias_in_mlp": False},
    "opt": {"opt_pos_emb_offset": 2, "activation": "relu"},
    "pythia": {
        "pos_emb": "rotary",
        "rotary_pct": 0.25,
        "gpt_j_residual": True,
        "no_weight_tying": True,
        "bias_gelu_fusion": True,
        "attention_config": [[["flash"], "all"]],
    },
    "gpt-j": {
        "pos_emb": "rotary",
        "gpt_j_residual": True,
        "gpt_j_tied": True,
        "no_weight_tying": True,
        "use_bias_in_output_layer": True,
    },
    "parallel residual without an MLP bias": {"gpt_j_residual": True, "use_bias_in_mlp": False, "pos_emb": "none"},
    "llama": {
        "norm": "rmsnorm",
        "pos_emb": "rotary",
        "activation": "swiglu",
        "no_weight_tying": True,
        "num_kv_heads": 2,
        "mlp_multiple_of": 8,
        "use_bias_in_norms": False,
        "use_bias_in_attn_linear": False,
        "use_bias_in_mlp": False,
        "attention_config": [[["flash", "global"], "all"]],
    },
    "scalenorm, gated with biases": {
        "norm": "scalenorm",
        "activation": "geglu",
        "mlp_multiple_of": 8,
        "pos_emb": "rotary",
    },
    "qwen3": {
        "norm": "rmsnorm",
        "pos_emb": "rotary",
        "activation": "swiglu",
        "num_kv_heads": 2,
        "head_dim": 12,
        "use_qk_layernorm": True,
        "mlp_multiple_of": 8,
        "use_bias_in_attn_linear": False,
        "use_bias_in_mlp": False,
    },
    "olmo2": {
        "norm": "rmsnorm",
        "pos_emb": "rotary",
        "activation": "swiglu",
        "no_weight_tying": True,
        "use_qk_layernorm": True,
        "qk_layernorm_scope": "all_heads",
        "norm_position": "post",
        "mlp_multiple_of": 8,
        "use_bias_in_attn_linear": False,
        "use_bias_in_mlp": False,
    },
    "norms with biases behind attention and MLP and over all heads": {
        "num_kv_heads": 2,
        "use_qk_layernorm": True,
        "qk_layernorm_scope": "all_heads",
        "norm_position": "post",
    },
    "sliding window, llama3 scaling, biases of queries, keys and values": {
        "norm": "rmsnorm",
        "pos_emb": "rotary",
        "rotary_emb_base": 100,
        "rope_scaling": {
            "type": "llama3",
            "factor": 4,
            "low_freq_factor": 1,
            "high_freq_factor": 4,
            "original_max_position_embeddings": 64,
        },
        "sliding_window_width": 5,
        "use_bias_in_attn_output": False,
        "attention_config": [[["flash", "global"], "all"]],
    },
    "parallel residual, yarn scaling, narrow heads with norms and biases": {
        "pos_emb": "rotary",
        "gpt_j_residual": True,
        "head_dim": 6,
        "use_qk_layernorm": True,
        "rope_scaling": {
            "type": "yarn",
            "factor": 2,
            "original_max_position_embeddings": 8,
            "beta_fast": 1,
            "beta_slow": 0.1,
        },
    },
    "mpt": {
        "pos_emb": "alibi",
        "num_attention_heads": 8,
        "use_bias_in_norms": False,
        "use_bias_in_attn_linear": False,
        "use_bias_in_mlp": False,
        "attention_config": [[["flash", "global"], "all"]],
    },
    "non-parametric norm": {"norm": "non_parametric_layernorm", "apply_query_key_layer_scaling": True},
}


def build_args(*, train_impl: str = "normal", **settings: Any) -> NeoXArgs:
    """Complete arguments of a two-block model with the given settings. train_impl is taken as it is: rewards have a model, but no training."""
    return NeoXArgs.from_dict({**DEFAULTS, **settings}).model_copy(update={"train_impl": train_impl})


def build_model(
    args: NeoXArgs, *, context: BuildContext = FP64, padded_vocab_size: int = 64, **options: Any
) -> SequentialModel:
    """A model whose parameters are all perturbed, alike in every layout."""
    specs = build_layer_specs(args, vocab_size=VOCAB_SIZE, padded_vocab_size=padded_vocab_size)
    model = SequentialModel(specs, context, seed=None, **options)
    perturb(model)
    return model


def perturb(module: nn.Module, *, seed: int = 5) -> None:
    """Initialise and add noise to every parameter (named by the module, if nobody named them), so that none can be dropped unseen."""
    if not all(shard_of(parameter).name for parameter in module.parameters()):
        name_parameters(module, "0")
    for parameter in module.parameters():
        info = shard_of(parameter)
        set_shard(parameter, replace(info, init=_with_noise(info.init)))
    initialize_parameters(module, seed=seed)


def random_batch(*, rows: int = 2, length: int = 16) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(tokens, labels, loss_mask, position_ids), each [rows, length]; a third of the mask is zero."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randint(VOCAB_SIZE, (rows, length + 1), generator=generator)
    loss_mask = (torch.rand(rows, length, generator=generator) > 1 / 3).float()
    return text[:, :-1], text[:, 1:], loss_mask, torch.arange(length).expand(rows, length)


def dropout_keys(*, rows: int = 2, step: int = 0) -> DropoutKeys:
    """Those of the first samples of a run."""
    return DropoutKeys(sample_keys(range(rows), seed=1, step=step))


def parameters_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters under their layout-free names."""
    return {shard_of(parameter).name: parameter for parameter in model.parameters()}


def _with_noise(init: InitMethod) -> InitMethod:
    def fill(tensor: Tensor, generator: torch.Generator) -> None:
        init(tensor, generator)
        tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)

    return fill
