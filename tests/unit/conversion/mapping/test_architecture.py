"""One architecture has one form, whichever keys said it, and what it computes decides whether two are equal."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from megatron.conversion.mapping.architecture import (
    Architecture,
    architecture_of,
    build_architecture,
    config_keys,
    differences,
)
from megatron.errors import CheckpointError
from megatron.neox_arguments import NeoXArgs
from tests.unit.model.builders import DEFAULTS, VARIANTS

YARN = {"type": "yarn", "factor": 2, "original_max_position_embeddings": 8}


def architecture(**keys: Any) -> Architecture:
    return architecture_of(NeoXArgs.from_dict({**DEFAULTS, **keys}), vocab_size=59)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_keys_of_an_architecture_ask_for_it(variant: str) -> None:
    before = architecture(**VARIANTS[variant])
    keys = config_keys(before)
    again = NeoXArgs.from_dict({**keys, "seq_length": 16, "train_iters": 1, "train_micro_batch_size_per_gpu": 1})
    assert architecture_of(again, vocab_size=59) == before
    assert again.mlp_width == before.mlp_width


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"expansion_factor": 4}, {"intermediate_size": 128}),
        ({"norm": "te_rmsnorm", "rms_norm_epsilon": 1e-6}, {"norm": "rmsnorm", "rms_norm_epsilon": 1e-6}),
        ({"norm": "te_layernorm", "use_bias_in_norms": False}, {"use_bias_in_norms": False}),
        ({"activation": "swish"}, {"activation": "silu"}),
        ({"rotary_pct": 0.5}, {"rotary_pct": 1.0}),  # positions are learned
        ({"rotary_emb_base": 500}, {}),
        ({"use_bias_in_norms": False, "norm": "rmsnorm"}, {"norm": "rmsnorm"}),
        ({"layernorm_epsilon": 1e-3, "norm": "rmsnorm"}, {"norm": "rmsnorm"}),
        ({"bias_gelu_fusion": True, "activation": "relu"}, {"activation": "relu"}),
        ({"attention_config": [[["flash"], "all"]]}, {}),
        (
            {"pos_emb": "rotary", "rope_scaling": {**YARN, "beta_fast": 32, "beta_slow": 1}},
            {"pos_emb": "rotary", "rope_scaling": YARN},
        ),
    ],
)
def test_what_computes_the_same_is_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert architecture(**one) == architecture(**other)


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"bias_gelu_fusion": True}, "activation"),
        ({"layernorm_epsilon": 1e-3}, "norm_epsilon"),
        ({"pos_emb": "rotary"}, "pos_emb"),
        ({"sliding_window_width": 8}, "sliding_window_width"),
        ({"gpt_j_residual": True}, "gpt_j_residual"),
    ],
)
def test_what_computes_something_else_differs(keys: dict[str, Any], name: str) -> None:
    assert set(differences(architecture(), architecture(**keys))) == {name}


def test_values_without_a_default_must_be_there() -> None:
    with pytest.raises(CheckpointError, match="lack num_layers, hidden_size"):
        build_architecture({"vocab_size": 5})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_kv_heads": 3}, "3 key/value heads do not divide its 4 query heads"),
        ({"num_kv_heads": 0}, "0 key/value heads"),
        ({"sliding_window_width": 0}, "window is 0 tokens wide"),
        ({"rotary_pct": 0.4}, "3 of the 8 channels of a head are rotated"),
        ({"rotary_pct": 0.0}, "0 of the 8 channels"),
    ],
)
def test_what_no_model_of_ours_can_be_is_refused(values: dict[str, Any], reason: str) -> None:
    sizes = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "num_kv_heads": 4, "head_dim": 8}
    rest = {"mlp_width": 8, "vocab_size": 5, "max_position_embeddings": 8}
    assert build_architecture({**sizes, **rest}).head_dim == 8
    with pytest.raises(CheckpointError, match=reason):
        build_architecture({**sizes, **rest, **values})


@pytest.mark.parametrize(
    ("switch", "without_effect"),
    [
        ({"pos_emb": "none"}, {"rotary_pct": 0.5, "rotary_emb_base": 500, "rope_scaling": YARN}),
        ({"pos_emb": "none"}, {"opt_pos_emb_offset": 2}),
        ({"use_qk_layernorm": False}, {"qk_layernorm_scope": "all_heads"}),
        ({"gpt_j_residual": False}, {"gpt_j_tied": True}),
        ({"norm": "rmsnorm"}, {"use_bias_in_norms": False}),
        ({"train_impl": "rm"}, {"no_weight_tying": False}),
        ({"train_impl": "rm"}, {"use_bias_in_output_layer": True}),
    ],
)
def test_what_a_switch_makes_meaningless_has_one_form(switch: dict[str, Any], without_effect: dict[str, Any]) -> None:
    values = {**asdict(architecture()), **switch}
    assert build_architecture({**values, **without_effect}) == build_architecture(values)


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "geglu", "reglu", "swiglu", "bilinear", "glu"])
def test_the_keys_give_the_width_of_the_mlp_whether_it_is_gated_or_not(activation: str) -> None:
    keys = {**DEFAULTS, **config_keys(replace(architecture(), activation=activation, mlp_width=40))}
    keys = {key: value for key, value in keys.items() if key in NeoXArgs.model_fields and key != "expansion_factor"}
    assert NeoXArgs.from_dict(keys).mlp_width == 40


def test_every_objective_but_that_of_rewards_trains_a_language_model() -> None:
    args = NeoXArgs.from_dict(DEFAULTS)
    kinds = {
        name: architecture_of(args.model_copy(update={"train_impl": name}), vocab_size=59).train_impl
        for name in ("normal", "dpo", "rm")
    }
    assert kinds == {"normal": "normal", "dpo": "normal", "rm": "rm"}
