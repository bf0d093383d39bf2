"""Falcon: 7B (one key/value head, one norm), 40B and 180B (groups of heads, two norms beside each other), Falcon 2 11B (groups, one norm)."""

from __future__ import annotations

from typing import Any

from megatron.conversion.families.common import GELUS, TIED, head_width, heads_of, layer_norm
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.packing import heads_by_group
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Always, Choice, Computed, Config, Same, Table, Untranslatable

_BIASES = ("use_bias_in_attn_linear", "use_bias_in_attn_output", "use_bias_in_mlp")
_BLOCK_KEYS = ("new_decoder_architecture", "parallel_attn", "num_ln_in_parallel_attn", "multi_query", "num_kv_heads")
_BLOCK = "transformer.h.{layer}"


def _ours(config: Config) -> dict[str, Any]:
    is_new, is_parallel = config.get("new_decoder_architecture"), config.get("parallel_attn", True)
    norms, heads = config.get("num_ln_in_parallel_attn"), heads_of(config)
    groups = config.get("num_kv_heads") or heads
    if is_new:
        norms = norms or 2
        if not is_parallel or norms not in (1, 2):
            raise Untranslatable(
                f"parallel_attn {is_parallel} with {norms} norms is no form of new_decoder_architecture"
            )
        return {"gpt_j_residual": True, "gpt_j_tied": norms == 1, "num_kv_heads": groups}
    if is_parallel and norms not in (None, 1):
        raise Untranslatable(f"num_ln_in_parallel_attn is {norms}, which new_decoder_architecture alone can have")
    is_multi_query = config.get("multi_query", True)
    if not is_multi_query and groups != heads:
        raise Untranslatable(f"num_kv_heads is {groups}, which new_decoder_architecture alone can have")
    return {
        "gpt_j_residual": bool(is_parallel),
        "gpt_j_tied": bool(is_parallel),
        "num_kv_heads": 1 if is_multi_query else heads,
    }


def _theirs(architecture: Architecture) -> dict[str, Any]:
    is_parallel, one_norm = architecture.gpt_j_residual, architecture.gpt_j_tied
    groups = architecture.num_kv_heads
    has_groups = groups not in (1, architecture.num_attention_heads)
    if is_parallel and (has_groups or not one_norm):
        return {
            "new_decoder_architecture": True,
            "parallel_attn": True,
            "num_ln_in_parallel_attn": 1 if one_norm else 2,
            "num_kv_heads": groups,
        }
    if has_groups:
        raise Untranslatable(f"num_kv_heads {groups} without gpt_j_residual")
    return {"new_decoder_architecture": False, "parallel_attn": is_parallel, "multi_query": groups == 1}


def _no_alibi(config: Config) -> dict[str, Any]:
    if config.get("alibi"):
        raise Untranslatable(
            "alibi is True: scores and distances are added and then divided by the root of a head's width, and here only scores are divided"
        )
    return {}


def _has_two_norms(architecture: Architecture) -> bool:
    return architecture.gpt_j_residual and not architecture.gpt_j_tied


def _has_no_two_norms(architecture: Architecture) -> bool:
    return not _has_two_norms(architecture)


FAMILY = Family(
    name="falcon",
    model_type="falcon",
    causal="FalconForCausalLM",
    classifier="FalconForSequenceClassification",
    settings=Table(
        (
            Same("vocab_size", "vocab_size"),
            Same("hidden_size", "hidden_size"),
            Same("num_layers", "num_hidden_layers"),
            Same("num_attention_heads", "num_attention_heads"),
            Always(lambda config: {"head_dim": head_width(config)}),
            Computed(_BLOCK_KEYS, _ours, _theirs),
            Same("mlp_width", "ffn_hidden_size", lambda config: 4 * int(config["hidden_size"])),
            Same("max_position_embeddings", "max_position_embeddings", 2048),
            Choice("activation", GELUS, "gelu"),
            *layer_norm("layer_norm_epsilon"),
            Rotary(),
            Computed(("alibi",), _no_alibi, lambda architecture: {"alibi": False}),
            Choice("bias", {has: dict.fromkeys(_BIASES, has) for has in (False, True)}, False),
            TIED,
        )
    ),
    modules=(
        Module("embedding.word_embeddings", ("transformer.word_embeddings",)),
        Module("block.input_layernorm", (f"{_BLOCK}.input_layernorm",), when=_has_no_two_norms),
        Module("block.post_attention_layernorm", (f"{_BLOCK}.post_attention_layernorm",), when=_has_no_two_norms),
        Module("block.input_layernorm", (f"{_BLOCK}.ln_attn",), when=_has_two_norms),
        Module("block.post_attention_layernorm", (f"{_BLOCK}.ln_mlp",), when=_has_two_norms),
        Module("block.attention.query_key_value", (f"{_BLOCK}.self_attention.query_key_value",), heads_by_group),
        Module("block.attention.dense", (f"{_BLOCK}.self_attention.dense",)),
        Module("block.mlp.linear1", (f"{_BLOCK}.mlp.dense_h_to_4h",)),
        Module("block.mlp.linear2", (f"{_BLOCK}.mlp.dense_4h_to_h",)),
        Module("norm.norm", ("transformer.ln_f",)),
        Module("head.final_linear", ("lm_head",)),
        Module("head.rm_linear", ("score",)),
    ),
    prefix="transformer.",
)
