"""Rows and modules that several families share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Module
from megatron.conversion.mapping.packing import gate_and_up, separate_heads, separate_interleaved_heads
from megatron.conversion.mapping.settings import Always, Computed, Config, Opposite, Row, Same, value_of


def heads_of(config: Config) -> int:
    """`num_key_value_heads` where it is missing: as many as there are query heads."""
    return int(config["num_attention_heads"])


def head_width(config: Config) -> int:
    """`head_dim` where it is missing."""
    return int(config["hidden_size"]) // int(config["num_attention_heads"])


def unless_null(key: str, missing: Any, null: Any = None) -> Callable[[Config], Any]:
    """The default of a key which says one thing when it is missing and another when it is null. null: a value, or a function of the `config.json`."""

    def default(config: Config) -> Any:
        if key not in config:
            return missing
        return null(config) if callable(null) else null

    return default


def one_kind_of_heads(config: Config) -> dict[str, int]:
    """As many key/value heads as query heads, which together are as wide as the model."""
    return {"num_kv_heads": heads_of(config), "head_dim": head_width(config)}


def output_bias(config: Config) -> dict[str, bool]:
    """A bias in the output layer, which a reward model does not have: for `Always` as a function, which is compared by what it means."""
    return {"use_bias_in_output_layer": True}


ATTENTION_BIAS = {
    has_bias: {"use_bias_in_attn_linear": has_bias, "use_bias_in_attn_output": has_bias} for has_bias in (False, True)
}
"""`attention_bias` as a choice: on all projections of the attention or on none."""

GELUS = {
    **{key: {"activation": "gelu"} for key in ("gelu", "gelu_python")},
    **{
        key: {"activation": "gelu_tanh"}
        for key in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate")
    },
    "relu": {"activation": "relu"},
    **{key: {"activation": "silu"} for key in ("silu", "swish")},
    "mish": {"activation": "mish"},
}
"""`hidden_act` of a plain MLP; five names of transformers stand for the tanh approximation."""

GATES = {
    **{key: {"activation": "swiglu"} for key in ("silu", "swish")},
    **{key: {"activation": "geglu"} for key in ("gelu", "gelu_python")},
    "relu": {"activation": "reglu"},
    "sigmoid": {"activation": "glu"},
    "linear": {"activation": "bilinear"},
}
"""`hidden_act` of a gated MLP."""


def sizes(kv_heads: int | None = None) -> tuple[Row, ...]:
    """What says how large a model is. kv_heads: `num_key_value_heads` where it is missing, None = as many as query heads."""
    default = heads_of if kv_heads is None else unless_null("num_key_value_heads", kv_heads, heads_of)
    return (
        Same("vocab_size", "vocab_size"),
        Same("hidden_size", "hidden_size"),
        Same("num_layers", "num_hidden_layers"),
        Same("num_attention_heads", "num_attention_heads"),
        Same("num_kv_heads", "num_key_value_heads", default),
        Same("mlp_width", "intermediate_size"),
    )


def _unusual_head_width(architecture: Architecture) -> dict[str, int]:
    usual = architecture.hidden_size // architecture.num_attention_heads
    return {} if architecture.head_dim == usual else {"head_dim": architecture.head_dim}


SIZES = sizes()
HEAD_DIM_BESIDE = Computed(
    keys=("head_dim",),
    ours=lambda config: {"head_dim": value_of(config, "head_dim", head_width)},
    theirs=_unusual_head_width,
)
"""`head_dim` of models whose configuration in transformers does not list it, but heeds it."""


def rms_norm(epsilon: float = 1e-6) -> tuple[Row, ...]:
    """RMSNorm everywhere. epsilon: `rms_norm_eps` where it is missing."""
    return Always({"norm": "rmsnorm"}), Same("norm_epsilon", "rms_norm_eps", epsilon)


def layer_norm(key: str) -> tuple[Row, ...]:
    """LayerNorm with gains and offsets everywhere. key: of its epsilon, 1e-5 where it is missing."""
    return Always({"norm": "layernorm", "use_bias_in_norms": True}), Same("norm_epsilon", key, 1e-5)


RMS_NORM = rms_norm()
UNTIED = Opposite("no_weight_tying", "tie_word_embeddings", False)
TIED = Opposite("no_weight_tying", "tie_word_embeddings", True)
"""Whether the output layer is the embedding: what transformers takes where the key is missing differs."""

LLAMA_MODULES = (
    Module("embedding.word_embeddings", ("model.embed_tokens",)),
    Module("block.input_layernorm", ("model.layers.{layer}.input_layernorm",)),
    Module(
        "block.attention.query_key_value",
        tuple(f"model.layers.{{layer}}.self_attn.{part}_proj" for part in "qkv"),
        separate_heads,
    ),
    Module("block.attention.dense", ("model.layers.{layer}.self_attn.o_proj",)),
    Module("block.post_attention_layernorm", ("model.layers.{layer}.post_attention_layernorm",)),
    Module(
        "block.mlp.linear1",
        ("model.layers.{layer}.mlp.gate_proj", "model.layers.{layer}.mlp.up_proj"),
        gate_and_up,
    ),
    Module("block.mlp.linear2", ("model.layers.{layer}.mlp.down_proj",)),
    Module("norm.norm", ("model.norm",)),
    Module("head.final_linear", ("lm_head",)),
    Module("head.rm_linear", ("score",)),
)
"""The modules of Llama, whose names most later models have kept."""

LLAMA_BUFFERS = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"model\.rotary_emb\.inv_freq")
"""Tables of frequencies that files of earlier versions hold."""


def llama_modules(*others: Module) -> tuple[Module, ...]:
    """Those of Llama and these, which take the place of those of the same name."""
    by_name = {module.ours: module for module in (*LLAMA_MODULES, *others)}
    return tuple(by_name.values())


HEAD_NORMS = tuple(
    Module(f"block.attention.{ours}_layernorm", (f"model.layers.{{layer}}.self_attn.{theirs}_norm",))
    for ours, theirs in {"query": "q", "key": "k"}.items()
)
"""Norms of queries and keys, under the names of Qwen3 and OLMo-2."""

INTERLEAVED_HEADS = Module(
    "block.attention.query_key_value",
    tuple(f"model.layers.{{layer}}.self_attn.{part}_proj" for part in "qkv"),
    separate_interleaved_heads,
)
"""Queries, keys and values of models that rotate neighbouring channels."""
