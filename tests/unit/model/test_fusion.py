"""The keys of fused kernels choose other ways through a model, which give its numbers: on a CPU, by the operations in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.fused_kernels import dispatch, reference
from megatron.model.block import Block
from megatron.model.mlp.gated import GatedMLP
from megatron.model.mlp.plain import PlainMLP
from megatron.model.spec import BuildContext
from tests.unit.fused_kernels import fused_model
from tests.unit.model.builders import (
    FP64,
    NORMAL,
    VARIANTS,
    build_args,
    build_model,
    dropout_keys,
    parameters_by_name,
    perturb,
    random_batch,
)

FUSION = {**fused_model.FUSION, "bias_gelu_fusion": True}
CASES = {
    f"{name}{', dropped' if changes else ''}": {**VARIANTS[name], "bias_gelu_fusion": True, **changes}
    for name in VARIANTS
    for changes in ({}, {"hidden_dropout": 0.2})
}
OPERATIONS = (
    *("rotary", "swiglu", "geglu", "bias_gelu_tanh", "bias_dropout_add"),
    *("layer_norm", "rms_norm", "causal_softmax", "masked_softmax"),
)


@cache
def trained(name: str, is_fused: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """The logits and all gradients of a training step."""
    settings = {**CASES[name], **(FUSION if is_fused else {})}
    model = build_model(build_args(**settings), context=BuildContext(dtype=dtype)).train()
    tokens, _, _, position_ids = random_batch()
    logits = model(tokens, position_ids, dropout_keys=dropout_keys().keys)
    logits.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in parameters_by_name(model).items()}
    return {"logits": logits.detach(), **gradients}


@pytest.mark.parametrize("name", CASES)
def test_a_model_with_fusion_has_the_numbers_of_one_without(name: str) -> None:
    # The order of sums differs where biases are added behind products.
    found, expected = trained(name, True, torch.float64), trained(name, False, torch.float64)
    assert found.keys() == expected.keys()
    for part, value in expected.items():
        torch.testing.assert_close(found[part], value, rtol=0, atol=1e-13 * max(float(value.abs().max()), 1e-3))


@pytest.mark.parametrize("name", ["llama", "scalenorm, gated with biases"])
def test_rotation_and_gates_have_the_same_bits_in_half_precision(name: str) -> None:
    without = build_model(build_args(**VARIANTS[name]), context=BuildContext(dtype=torch.bfloat16))
    fusion: dict[str, Any] = {"rope_fusion": True, "use_flashattn_swiglu": True}
    fused = build_model(build_args(**VARIANTS[name], **fusion), context=BuildContext(dtype=torch.bfloat16))
    tokens, _, _, position_ids = random_batch()
    assert torch.equal(fused(tokens, position_ids), without(tokens, position_ids))


def chosen(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The operations that a model uses, of a device for which there are kernels."""
    used: set[str] = set()

    def kernel(name: str) -> Callable[..., Tensor]:
        def counted(*values: Any, **options: Any) -> Tensor:
            used.add(name)
            result: Tensor = getattr(reference, name)(*values, **options)
            return result

        return counted

    kernels = {name: kernel(name) for name in OPERATIONS}
    monkeypatch.setattr(dispatch, "_obstacle", lambda device: None)
    monkeypatch.setattr(dispatch, "fused", lambda name: kernels.get(name) or dispatch.plain(name))
    model = build_model(build_args(**settings))
    assert isinstance(model.layer(2), Block)
    tokens, _, _, position_ids = random_batch()
    model(tokens, position_ids, dropout_keys=dropout_keys().keys)
    return used


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pos_emb": "rotary"}, set()),
        ({"pos_emb": "rotary", "rope_fusion": True}, {"rotary"}),
        ({"rope_fusion": True}, set()),
        ({"bias_gelu_fusion": True}, {"bias_gelu_tanh"}),
        ({"bias_gelu_fusion": True, "use_bias_in_mlp": False}, set()),
        ({"bias_gelu_fusion": True, "activation": "relu"}, set()),
        ({"bias_gelu_fusion": True, "activation": "geglu"}, set()),
        ({"use_flashattn_swiglu": True, "activation": "geglu"}, {"geglu"}),
        ({"use_flashattn_swiglu": True, "activation": "swiglu"}, {"swiglu"}),
        ({"use_flashattn_swiglu": True, "activation": "reglu"}, set()),
        ({"bias_dropout_fusion": True}, {"bias_dropout_add"}),
        ({"bias_dropout_fusion": True, "gpt_j_residual": True}, {"bias_dropout_add"}),
        ({"bias_dropout_fusion": True, "norm_position": "post"}, {"bias_dropout_add"}),
        ({"layernorm_fusion": True}, {"layer_norm"}),
        ({"layernorm_fusion": True, "norm": "non_parametric_layernorm"}, {"layer_norm"}),
        ({"layernorm_fusion": True, "norm": "rmsnorm"}, set()),
        ({"layernorm_fusion": True, "norm": "scalenorm", "use_qk_layernorm": True}, set()),
        ({"rmsnorm_fusion": True, "norm": "rmsnorm", "use_qk_layernorm": True}, {"rms_norm"}),
        ({"rmsnorm_fusion": True}, set()),
        ({"scaled_upper_triang_masked_softmax_fusion": True}, {"causal_softmax"}),
        ({"scaled_upper_triang_masked_softmax_fusion": True, "sliding_window_width": 3}, set()),
        ({"scaled_upper_triang_masked_softmax_fusion": True, "attention_config": ["flash"] * 2}, set()),
        ({"scaled_masked_softmax_fusion": True, "sliding_window_width": 3}, {"masked_softmax"}),
        ({"scaled_masked_softmax_fusion": True}, set()),
        ({"scaled_masked_softmax_fusion": True, "pos_emb": "alibi"}, set()),
    ],
    ids=str,
)
def test_each_key_chooses_its_kernels_and_no_others(
    settings: dict[str, Any], expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(settings, monkeypatch) == expected


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_bias_is_added_once_by_what_computes_it_with_the_activation(use_bias: bool) -> None:
    options = {"hidden_size": 8, "width": 20, "use_bias": use_bias, "init": NORMAL, "output_init": NORMAL}
    mlps = [
        PlainMLP(activation=reference.gelu_tanh, context=FP64, fused=fused, **options)
        for fused in (None, reference.bias_gelu_tanh)
    ]
    hidden = torch.randn(5, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for mlp in mlps:
        perturb(mlp)
        mlp(hidden).square().mean().backward()
    torch.testing.assert_close(mlps[1](hidden), mlps[0](hidden), rtol=0, atol=1e-13)
    for plain, fused in zip(mlps[0].parameters(), mlps[1].parameters(), strict=True):
        torch.testing.assert_close(fused.grad, plain.grad, rtol=0, atol=1e-13)


def test_gates_are_those_of_the_activation() -> None:
    options = {"hidden_size": 8, "width": 12, "use_bias": True, "init": NORMAL, "output_init": NORMAL}
    pairs = ((torch.nn.functional.silu, reference.swiglu), (reference.gelu_erf, reference.geglu))
    hidden = torch.randn(5, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for activation, fused in pairs:
        mlps = [GatedMLP(activation=activation, context=FP64, fused=each, **options) for each in (None, fused)]
        for mlp in mlps:
            perturb(mlp)
        assert torch.equal(mlps[0](hidden), mlps[1](hidden))
