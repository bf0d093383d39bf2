"""What kind of value each key of a `config.json` has, so that a damaged file is answered with a sentence before anything is computed from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SECTIONS = ("rope_parameters", "rope_scaling", "attn_config")
_MOST = 10**8  # far above any real size: what is larger would fill the memory before it is seen to be wrong
_MOST_LAYERS = 10**4
_SHOWN = 60


@dataclass(frozen=True)
class _Kind:
    words: str
    fits: Callable[[Any], bool]


def _whole(lowest: int, highest: int) -> _Kind:
    return _Kind(
        f"a whole number from {lowest} to {highest}",
        lambda value: type(value) is int and lowest <= value <= highest,
    )


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_SIZE = _whole(1, _MOST)
_LAYERS = _whole(1, _MOST_LAYERS)
_COUNT = _whole(0, _MOST)
_SWITCH = _Kind("true or false", lambda value: isinstance(value, bool))
_POSITIVE = _Kind("a number above 0", lambda value: type(value) in (int, float) and 0 < value < 1e30)
_PART = _Kind("a number from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1)
_TEXT = _Kind("a text", lambda value: isinstance(value, str))
_TEXTS = _Kind("a list of texts", _texts)
_SECTION = _Kind("a section of keys", lambda value: isinstance(value, Mapping))

KINDS: Mapping[str, _Kind] = {
    **dict.fromkeys(("vocab_size", "hidden_size", "n_embd", "num_attention_heads", "n_head", "head_dim"), _SIZE),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "word_embed_proj_dim"), _SIZE),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "max_position_embeddings", "n_positions"), _SIZE),
    **dict.fromkeys(("d_model", "n_heads", "max_seq_len"), _SIZE),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), _LAYERS),
    **dict.fromkeys(("sliding_window", "max_window_layers", "num_ln_in_parallel_attn", "rotary_dim"), _COUNT),
    **dict.fromkeys(("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "rms_norm_eps"), _POSITIVE),
    **dict.fromkeys(("rope_theta", "rotary_emb_base", "factor", "original_max_position_embeddings"), _POSITIVE),
    **dict.fromkeys(("mscale", "mscale_all_dim", "clip_qkv"), _POSITIVE),
    **dict.fromkeys(("alibi_bias_max", "expansion_ratio", "softmax_scale"), _POSITIVE),
    **dict.fromkeys(("rotary_pct", "partial_rotary_factor"), _PART),
    **dict.fromkeys(("activation", "activation_function", "hidden_act", "rope_type", "type"), _TEXT),
    **dict.fromkeys(("attn_type", "norm_type"), _TEXT),
    **dict.fromkeys(("architectures", "layer_types"), _TEXTS),
    **dict.fromkeys((*_SECTIONS, "id2label"), _SECTION),
    **dict.fromkeys(("attention_bias", "attention_out_bias", "bias", "enable_bias", "mlp_bias", "use_bias"), _SWITCH),
    **dict.fromkeys(("use_qkv_bias", "qk_layernorm", "layer_norm_elementwise_affine", "multi_query"), _SWITCH),
    **dict.fromkeys(("do_layer_norm_before", "_remove_final_layer_norm", "new_decoder_architecture"), _SWITCH),
    **dict.fromkeys(("parallel_attn", "use_parallel_residual", "add_cross_attention", "alibi"), _SWITCH),
    **dict.fromkeys(("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "use_sliding_window"), _SWITCH),
    **dict.fromkeys(("no_bias", "prefix_lm", "qk_ln"), _SWITCH),
    "tie_word_embeddings": _SWITCH,
    "num_labels": _SIZE,
}
"""By key, also of those in sections. A key that is null counts as missing."""


def wrong_values(config: Mapping[str, Any], keys: frozenset[str]) -> Iterator[str]:
    """A sentence about each of these keys whose value is of another kind than it must be."""
    for key in sorted(keys & config.keys()):
        value, kind = config[key], KINDS[key]
        if value is None:
            continue
        if not kind.fits(value):
            yield f"{key} is {_shown(value)}, and must be {kind.words}"
        elif key in _SECTIONS:
            yield from (f"{key}: {problem}" for problem in wrong_values(value, frozenset(KINDS)))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
