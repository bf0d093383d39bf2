"""Real configurations of Hugging Face transformers made small, for tests.

Heads, groups, biases, windows, rotary settings and constants are those of the real models, under the keys that their `config.json` has;
only sizes are small. Vocabularies are primes, so that padding is always there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HuggingFaceModel:
    """family: its name in the menu FAMILIES; architecture: class of transformers; config: keys of `config.json`, which decide about numbers;
    like: the models whose settings these are."""

    family: str
    architecture: str
    config: Mapping[str, Any]
    like: str


def _neox(like: str, *, architecture: str = "GPTNeoXForCausalLM", **config: Any) -> HuggingFaceModel:
    sizes = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 32,
        "rotary_emb_base": 10000,
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    return HuggingFaceModel("neox", architecture, {"model_type": "gpt_neox", **sizes, **config}, like)


def _with_layernorm(family: str, architecture: str, like: str, **config: Any) -> HuggingFaceModel:
    """Four heads of 8 channels, two blocks, and what most models since Llama have, but for the epsilon of RMSNorm; the rest as given."""
    sizes = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 86,
        "max_position_embeddings": 32,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    return HuggingFaceModel(family, architecture, {"model_type": family, **sizes, **config}, like)


def _llama_like(family: str, architecture: str, like: str, **config: Any) -> HuggingFaceModel:
    return _with_layernorm(family, architecture, like, **{"rms_norm_eps": 1e-5, **config})


def _llama(like: str, *, architecture: str = "LlamaForCausalLM", **config: Any) -> HuggingFaceModel:
    return _llama_like("llama", architecture, like, **config)


def _mistral(like: str, *, architecture: str = "MistralForCausalLM", **config: Any) -> HuggingFaceModel:
    return _llama_like("mistral", architecture, like, **{"num_key_value_heads": 1, **config})


def _qwen(family: str, architecture: str, like: str, **config: Any) -> HuggingFaceModel:
    settings = {
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
        "sliding_window": 5,
        "max_window_layers": 2,
    }
    return _llama_like(family, architecture, like, **{**settings, **config})


def _starcoder2(like: str, *, architecture: str = "Starcoder2ForCausalLM", **config: Any) -> HuggingFaceModel:
    settings = {
        "num_key_value_heads": 1,
        "hidden_act": "gelu_pytorch_tanh",
        "intermediate_size": 128,
        "norm_epsilon": 1e-5,
        "rope_theta": 100000,
        "use_bias": True,
        "tie_word_embeddings": True,
    }
    return _with_layernorm("starcoder2", architecture, like, **{**settings, **config})


def _stablelm(like: str, *, architecture: str = "StableLmForCausalLM", **config: Any) -> HuggingFaceModel:
    settings = {
        "num_key_value_heads": 4,
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.25,
        "use_qkv_bias": False,
    }
    return _with_layernorm("stablelm", architecture, like, **{**settings, **config})


def _gpt2_like(family: str, architecture: str, like: str, *, model_type: str = "", **config: Any) -> HuggingFaceModel:
    """Four heads of 8 channels, two blocks, under the names that keys have in GPT-2."""
    sizes = {
        "vocab_size": 61,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 32,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    }
    return HuggingFaceModel(family, architecture, {"model_type": model_type or family, **sizes, **config}, like)


def _opt(like: str, *, architecture: str = "OPTForCausalLM", **config: Any) -> HuggingFaceModel:
    sizes = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 128,
        "max_position_embeddings": 32,
        "word_embed_proj_dim": 32,
        "activation_function": "relu",
        "do_layer_norm_before": True,
    }
    return HuggingFaceModel("opt", architecture, {"model_type": "opt", **sizes, **config}, like)


def _phi(like: str, *, architecture: str = "PhiForCausalLM", **config: Any) -> HuggingFaceModel:
    """Four heads of 20 channels, of which 10 turn, and 8 in Phi-2."""
    sizes = {
        "vocab_size": 61,
        "hidden_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 160,
        "max_position_embeddings": 32,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    return HuggingFaceModel("phi", architecture, {"model_type": "phi", **sizes, **config}, like)


def _falcon(like: str, *, architecture: str = "FalconForCausalLM", **config: Any) -> HuggingFaceModel:
    """Four heads of 8 channels, two blocks."""
    sizes = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "layer_norm_epsilon": 1e-5,
        "alibi": False,
        "bias": False,
    }
    return HuggingFaceModel("falcon", architecture, {"model_type": "falcon", **sizes, **config}, like)


def _mpt(like: str, *, architecture: str = "MptForCausalLM", **config: Any) -> HuggingFaceModel:
    sizes = {
        "vocab_size": 61,
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 4,
        "max_seq_len": 32,
        "expansion_ratio": 4,
        "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_type": "multihead_attention"},
        "learned_pos_emb": True,
        "no_bias": True,
    }
    return HuggingFaceModel("mpt", architecture, {"model_type": "mpt", **sizes, **config}, like)


MODELS: Mapping[str, HuggingFaceModel] = {
    "pythia": _neox("Pythia", rotary_pct=0.25, hidden_act="gelu", use_parallel_residual=True),
    "gpt-neox-20b": _neox("GPT-NeoX-20B", rotary_pct=0.25, hidden_act="gelu_fast", use_parallel_residual=True),
    "redpajama": _neox("RedPajama-INCITE 3B", rotary_pct=1.0, hidden_act="gelu", use_parallel_residual=False),
    "neox-linear": _neox(
        "Pythia with longer contexts", hidden_act="gelu", rope_scaling={"type": "linear", "factor": 4.0}
    ),
    "neox-tied": _neox(
        "a small NeoX with tied embeddings and without biases in its attention",
        hidden_act="gelu_new",
        tie_word_embeddings=True,
        attention_bias=False,
    ),
    "neox-reward": _neox(
        "a reward model of Pythia", hidden_act="gelu", architecture="GPTNeoXForSequenceClassification", num_labels=1
    ),
    "gpt2": _gpt2_like("gpt2", "GPT2LMHeadModel", "GPT-2"),
    "gpt2-untied": _gpt2_like(
        "gpt2", "GPT2LMHeadModel", "Cerebras-GPT", n_inner=72, activation_function="gelu", tie_word_embeddings=False
    ),
    "gpt2-reward": _gpt2_like("gpt2", "GPT2ForSequenceClassification", "a reward model of GPT-2", num_labels=1),
    "opt": _opt("OPT 125M"),
    "galactica": _opt(
        "Galactica", activation_function="gelu", enable_bias=False, layer_norm_elementwise_affine=False, pad_token_id=1
    ),
    "opt-reward": _opt("a reward model of OPT", architecture="OPTForSequenceClassification", num_labels=1),
    "gptj": _gpt2_like("gptj", "GPTJForCausalLM", "GPT-J 6B", rotary_dim=4, tie_word_embeddings=False),
    "gptj-reward": _gpt2_like(
        "gptj", "GPTJForSequenceClassification", "a reward model of GPT-J", rotary_dim=8, num_labels=1
    ),
    "codegen": _gpt2_like(
        "codegen", "CodeGenForCausalLM", "CodeGen 350M", n_head=8, n_embd=64, rotary_dim=4, tie_word_embeddings=False
    ),
    "phi-1.5": _phi("Phi-1.5"),
    "phi-2": _phi("Phi-2", partial_rotary_factor=0.4, num_key_value_heads=4, qk_layernorm=False),
    "phi-groups": _phi(
        "Phi with groups of heads, whose queries and keys are normalised", num_key_value_heads=2, qk_layernorm=True
    ),
    "phi-reward": _phi("a reward model of Phi", architecture="PhiForSequenceClassification", num_labels=1),
    "falcon-7b": _falcon("Falcon 7B", multi_query=True, new_decoder_architecture=False, parallel_attn=True),
    "falcon-40b": _falcon("Falcon 40B", new_decoder_architecture=True, num_kv_heads=2, tie_word_embeddings=False),
    "falcon-11b": _falcon(
        "Falcon 2 11B", new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, rope_theta=500042.0
    ),
    "falcon-heads": _falcon("Falcon with a key/value head for each query head", multi_query=False, bias=True),
    "falcon-rw": _falcon(
        "Falcon RW, with rotary positions", parallel_attn=False, multi_query=False, bias=True, ffn_hidden_size=72
    ),
    "falcon-sequential": _falcon("Falcon, one part after the other", parallel_attn=False, multi_query=True),
    "falcon-reward": _falcon("a reward model of Falcon", architecture="FalconForSequenceClassification", num_labels=1),
    "starcoder": _gpt2_like(
        "gpt_bigcode", "GPTBigCodeForCausalLM", "StarCoder", activation_function="gelu", n_inner=128, multi_query=True
    ),
    "bigcode-heads": _gpt2_like(
        "gpt_bigcode",
        "GPTBigCodeForCausalLM",
        "an early StarCoder, with a key/value head for each query head",
        activation_function="gelu_pytorch_tanh",
        multi_query=False,
    ),
    "starcoder-reward": _gpt2_like(
        "gpt_bigcode", "GPTBigCodeForSequenceClassification", "a reward model of StarCoder", num_labels=1
    ),
    "llama-1": _llama("Llama 7B", rms_norm_eps=1e-6),
    "llama-2-70b": _llama("Llama 2 70B", num_key_value_heads=2, rope_scaling=None),
    "llama-3": _llama("Llama 3", num_key_value_heads=1, rope_theta=500000.0),
    "llama-3.2": _llama(
        "Llama 3.2 1B",
        num_key_value_heads=1,
        head_dim=8,
        rope_theta=500000.0,
        rope_scaling={
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 16,
            "rope_type": "llama3",
        },
        tie_word_embeddings=True,
    ),
    "code-llama": _llama("Code Llama", rope_theta=1000000),
    "llama-linear": _llama("DeepSeek Coder", rope_theta=100000, rope_scaling={"factor": 4.0, "type": "linear"}),
    "llama-yarn": _llama(
        "Yarn-Llama-2",
        rope_scaling={
            "factor": 16.0,
            "original_max_position_embeddings": 16,
            "type": "yarn",
            "finetuned": True,
        },
    ),
    "llama-biases": _llama("InternLM", attention_bias=True, mlp_bias=True, num_key_value_heads=2),
    "llama-wide-heads": _llama("Llama with heads wider than the model", num_key_value_heads=2, head_dim=12),
    "llama-reward": _llama(
        "a reward model of Llama 3",
        architecture="LlamaForSequenceClassification",
        num_key_value_heads=1,
        rope_theta=500000.0,
        num_labels=1,
    ),
    "mistral": _mistral("Mistral 7B v0.1", sliding_window=5),
    "mistral-nemo": _mistral("Mistral Nemo", sliding_window=None, head_dim=6, rope_theta=1000000.0),
    "mistral-reward": _mistral(
        "a reward model of Mistral", architecture="MistralForSequenceClassification", sliding_window=5, num_labels=1
    ),
    "ministral": _llama_like(
        "ministral",
        "MinistralForCausalLM",
        "Ministral, with a window of all layers",
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=5,
        layer_types=["sliding_attention", "sliding_attention"],
        rope_theta=100000000.0,
    ),
    "qwen2": _qwen("qwen2", "Qwen2ForCausalLM", "Qwen2.5 7B"),
    "qwen2-small": _qwen("qwen2", "Qwen2ForCausalLM", "Qwen2 0.5B", num_key_value_heads=1, tie_word_embeddings=True),
    "qwen1.5": _qwen("qwen2", "Qwen2ForCausalLM", "Qwen1.5 7B", num_key_value_heads=4, rope_theta=10000.0),
    "qwen2-window": _qwen(
        "qwen2",
        "Qwen2ForCausalLM",
        "Qwen2 with the windows of its files, in all layers",
        use_sliding_window=True,
        sliding_window=5,
        max_window_layers=0,
        rope_scaling={"factor": 4.0, "original_max_position_embeddings": 8, "type": "yarn"},
    ),
    "qwen2-reward": _qwen("qwen2", "Qwen2ForSequenceClassification", "a reward model of Qwen2", num_labels=1),
    "qwen3": _qwen("qwen3", "Qwen3ForCausalLM", "Qwen3 8B", head_dim=12, attention_bias=False),
    "qwen3-small": _qwen("qwen3", "Qwen3ForCausalLM", "Qwen3 0.6B", head_dim=16, tie_word_embeddings=True),
    "qwen3-biases": _qwen("qwen3", "Qwen3ForCausalLM", "Qwen3 with biases", head_dim=8, attention_bias=True),
    "qwen3-reward": _qwen(
        "qwen3", "Qwen3ForSequenceClassification", "a reward model of Qwen3", head_dim=12, num_labels=1
    ),
    "olmo": _with_layernorm("olmo", "OlmoForCausalLM", "OLMo 7B"),
    "olmo-groups": _with_layernorm(
        "olmo",
        "OlmoForCausalLM",
        "OLMo with biases and groups",
        attention_bias=True,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "olmo2": _llama_like("olmo2", "Olmo2ForCausalLM", "OLMo 2 7B", rms_norm_eps=1e-6, rope_theta=500000),
    "olmo2-32b": _llama_like(
        "olmo2", "Olmo2ForCausalLM", "OLMo 2 32B", rms_norm_eps=1e-6, rope_theta=500000, num_key_value_heads=2
    ),
    "olmo2-reward": _llama_like(
        "olmo2", "Olmo2ForSequenceClassification", "a reward model of OLMo 2", rms_norm_eps=1e-6, num_labels=1
    ),
    "phi-3": _llama_like("phi3", "Phi3ForCausalLM", "Phi-3 mini 4k", sliding_window=5, num_key_value_heads=4),
    "phi-4": _llama_like(
        "phi3", "Phi3ForCausalLM", "Phi-4", sliding_window=None, num_key_value_heads=1, rope_theta=250000
    ),
    "phi-4-mini": _llama_like(
        "phi3",
        "Phi3ForCausalLM",
        "Phi-4 mini without its longrope",
        num_key_value_heads=2,
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
    ),
    "phi3-reward": _llama_like(
        "phi3", "Phi3ForSequenceClassification", "a reward model of Phi-3", num_key_value_heads=4, num_labels=1
    ),
    "starcoder2": _starcoder2("StarCoder2 15B", sliding_window=5),
    "starcoder2-bare": _starcoder2("StarCoder2 without biases", use_bias=False, tie_word_embeddings=False),
    "starcoder2-reward": _starcoder2(
        "a reward model of StarCoder2", architecture="Starcoder2ForSequenceClassification", num_labels=1
    ),
    "stablelm": _stablelm("StableLM 3B"),
    "stablelm-2": _stablelm("StableLM 2 1.6B", use_qkv_bias=True),
    "stablelm-2-12b": _stablelm(
        "StableLM 2 12B without its norms of queries and keys", use_parallel_residual=True, num_key_value_heads=1
    ),
    "stablelm-reward": _stablelm(
        "a reward model of StableLM", architecture="StableLmForSequenceClassification", num_labels=1
    ),
    "seed-oss": _llama_like(
        "seed_oss",
        "SeedOssForCausalLM",
        "Seed-OSS 36B",
        num_key_value_heads=1,
        head_dim=12,
        attention_bias=True,
        attention_out_bias=False,
        rope_theta=10000000.0,
    ),
    "helium": _llama_like(
        "helium",
        "HeliumForCausalLM",
        "Helium 1 2B",
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-8,
        rope_theta=100000.0,
    ),
    "glm": _llama_like(
        "glm",
        "GlmForCausalLM",
        "GLM-4 9B",
        num_key_value_heads=1,
        head_dim=12,
        attention_bias=True,
        partial_rotary_factor=0.5,
        rms_norm_eps=1.5625e-07,
    ),
    "glm-reward": _llama_like(
        "glm",
        "GlmForSequenceClassification",
        "a reward model of GLM-4",
        num_key_value_heads=2,
        head_dim=8,
        attention_bias=False,
        num_labels=1,
    ),
    "ernie-4.5": _llama_like(
        "ernie4_5",
        "Ernie4_5ForCausalLM",
        "ERNIE 4.5 0.3B",
        num_key_value_heads=2,
        head_dim=12,
        use_bias=False,
        rope_theta=500000.0,
        tie_word_embeddings=True,
    ),
    "mpt": _mpt("MPT 7B"),
    "mpt-heads": _mpt(
        "MPT with a number of heads that is no power of two",
        n_heads=6,
        d_model=36,
        layer_norm_epsilon=1e-3,
        tie_word_embeddings=False,
    ),
    "mpt-reward": _mpt("a reward model of MPT", architecture="MptForSequenceClassification", num_labels=1),
}
