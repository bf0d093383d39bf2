"""Arguments become the right list of layers, numbered and named as in GPT-NeoX checkpoints."""

from __future__ import annotations

import pickle

import pytest
import torch

from megatron.model.attention.flash import FlashAttention
from megatron.model.attention.global_attention import GlobalAttention
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel, build_layer
from megatron.mpu.shard import shard_of
from megatron.neox_arguments import NeoXArgs
from tests.unit.model.builders import (
    FP64,
    VARIANTS,
    VOCAB_SIZE,
    build_args,
    build_model,
    parameters_by_name,
    random_batch,
)


def test_layers_are_numbered_as_in_gpt_neox() -> None:
    specs = build_layer_specs(build_args(num_layers=3), vocab_size=VOCAB_SIZE, padded_vocab_size=64)
    assert [(spec.number, spec.name) for spec in specs] == [
        (0, "embedding"),
        (2, "transformer"),
        (3, "transformer"),
        (4, "transformer"),
        (6, "norm"),
        (7, "head"),
    ]


def test_a_tied_head_names_what_it_shares() -> None:
    tied = build_layer_specs(build_args(), vocab_size=VOCAB_SIZE, padded_vocab_size=64)
    untied = build_layer_specs(build_args(no_weight_tying=True), vocab_size=VOCAB_SIZE, padded_vocab_size=64)
    assert (tied[-1].tied_to, tied[-1].tied_parameter) == (0, "word_embeddings.weight")
    assert (tied[0].tied_to, tied[0].tied_parameter) == (None, "word_embeddings.weight")
    assert all((spec.tied_to, spec.tied_parameter) == (None, "") for spec in untied)


def test_an_output_bias_begins_with_zeros_and_has_no_number_for_padding() -> None:
    args = build_args(no_weight_tying=True, use_bias_in_output_layer=True)
    specs = build_layer_specs(args, vocab_size=VOCAB_SIZE, padded_vocab_size=64)
    bias = parameters_by_name(SequentialModel(specs, FP64, seed=1))["6.final_linear.bias"]
    assert shard_of(bias).logical_shape == (VOCAB_SIZE,)
    assert bias.shape == (64,)
    assert not bias.any()


@pytest.mark.parametrize("no_weight_tying", [True, False])
def test_a_reward_model_gives_a_number_for_each_token_by_a_matrix_of_its_own(no_weight_tying: bool) -> None:
    args = build_args(train_impl="rm", no_weight_tying=no_weight_tying)
    model = build_model(NeoXArgs.from_resolved(args.to_dict()))
    assert all((spec.tied_to, spec.tied_parameter) == (None, "") for spec in model.specs)
    head = {name: value for name, value in parameters_by_name(model).items() if name.startswith("6.")}
    assert {name: tuple(value.shape) for name, value in head.items()} == {"6.rm_linear.weight": (1, 32)}
    tokens, _, _, position_ids = random_batch()
    normalised: list[torch.Tensor] = []
    model.layer(5).register_forward_hook(lambda _, __, stream: normalised.append(stream.hidden))
    rewards = model(tokens, position_ids)
    expected = torch.einsum("sbh,h->bs", normalised[0], head["6.rm_linear.weight"][0])
    torch.testing.assert_close(rewards, expected)
    assert rewards.shape == tokens.shape


def test_each_layer_has_the_attention_its_config_says() -> None:
    args = build_args(num_layers=3, attention_config=[[["flash", "global"], "all"]])
    model = build_model(args)
    kinds = [type(model.layer(number).attention) for number in (2, 3, 4)]
    assert kinds == [FlashAttention, GlobalAttention, FlashAttention]
    assert [model.layer(number).attention.layer for number in (2, 3, 4)] == [0, 1, 2]


@pytest.mark.parametrize("variant", VARIANTS)
def test_specs_survive_pickling(variant: str) -> None:
    specs = build_layer_specs(build_args(**VARIANTS[variant]), vocab_size=VOCAB_SIZE, padded_vocab_size=64)
    for spec in specs:
        copy = pickle.loads(pickle.dumps(spec))
        names = [name for name, _ in build_layer(copy, FP64).named_parameters()]
        assert names == [name for name, _ in build_layer(spec, FP64).named_parameters()]


def test_bias_switches_remove_exactly_their_biases() -> None:
    everything = set(parameters_by_name(build_model(build_args())))
    for switch, gone in (
        ("use_bias_in_norms", ("layernorm.bias", "norm.bias")),
        ("use_bias_in_attn_linear", ("query_key_value.bias", "dense.bias")),
        ("use_bias_in_attn_output", ("dense.bias",)),
        ("use_bias_in_mlp", ("linear1.bias", "linear2.bias")),
    ):
        rest = set(parameters_by_name(build_model(build_args(**{switch: False}))))
        assert everything - rest == {name for name in everything if name.endswith(gone)}


@pytest.mark.parametrize(
    ("norm", "scope", "expected"),
    [
        ("rmsnorm", "head", {"query_layernorm.scale": (6,), "key_layernorm.scale": (6,)}),
        ("scalenorm", "head", {"query_layernorm.g": (1,), "key_layernorm.g": (1,)}),
        ("non_parametric_layernorm", "head", {}),
        ("rmsnorm", "all_heads", {"query_layernorm.scale": (24,), "key_layernorm.scale": (12,)}),
        (
            "layernorm",
            "all_heads",
            {
                "query_layernorm.weight": (24,),
                "query_layernorm.bias": (24,),
                "key_layernorm.weight": (12,),
                "key_layernorm.bias": (12,),
            },
        ),
    ],
)
def test_query_and_key_norms_have_weights_for_a_head_or_for_all_of_them(
    norm: str, scope: str, expected: dict[str, tuple[int, ...]]
) -> None:
    settings = {"use_qk_layernorm": True, "qk_layernorm_scope": scope, "norm": norm, "num_kv_heads": 2, "head_dim": 6}
    parameters = parameters_by_name(build_model(build_args(**settings)))
    prefix = "2.attention."
    shapes = {name.removeprefix(prefix): tuple(value.shape) for name, value in parameters.items() if prefix in name}
    assert {name: shape for name, shape in shapes.items() if "layernorm" in name} == expected


def test_a_window_as_long_as_a_sample_is_no_window() -> None:
    tokens, _, _, position_ids = random_batch()
    models = [build_model(build_args(sliding_window_width=width)) for width in (None, 16, 15)]
    whole, same, narrower = (model(tokens, position_ids) for model in models)
    assert torch.equal(whole, same)
    assert torch.equal(whole[:, :15], narrower[:, :15])
    assert not torch.allclose(whole[:, 15], narrower[:, 15])
