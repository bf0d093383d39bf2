"""Each operation equals its formula, written out, and half precision is the fp32 result rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from megatron.fused_kernels import reference

FP64 = torch.float64


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=FP64, generator=torch.Generator().manual_seed(len(shape)))


def test_layer_norm_normalises_then_scales_and_shifts() -> None:
    x, weight, bias = random(3, 5, 8), random(8), random(8) + 1
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.pow(2).mean(-1, keepdim=True) + 0.1).sqrt() * weight + bias
    torch.testing.assert_close(reference.layer_norm(x, weight, bias, epsilon=0.1), expected)
    torch.testing.assert_close(reference.layer_norm(x, None, None, epsilon=0.1), (expected - bias) / weight)


def test_rms_norm_adds_epsilon_to_the_mean_square() -> None:
    x, scale = random(3, 5, 8), random(8)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 0.1).sqrt() * scale
    torch.testing.assert_close(reference.rms_norm(x, scale, epsilon=0.1), expected)


def test_scale_norm_divides_by_the_length_but_never_by_less_than_epsilon() -> None:
    x, gain = random(3, 8), torch.tensor([2.5], dtype=FP64)
    expected = 2.5 * x / x.pow(2).sum(-1, keepdim=True).sqrt()
    torch.testing.assert_close(reference.scale_norm(x, gain, epsilon=1e-8), expected)
    torch.testing.assert_close(reference.scale_norm(x, gain, epsilon=100.0), 2.5 * x / 100)


def test_rotary_is_multiplication_of_complex_pairs() -> None:
    x, angle = random(4, 10), random(4, 3)
    cosine, sine = (torch.cat((part, part), dim=-1) for part in (angle.cos(), angle.sin()))
    turned = torch.complex(x[:, :3], x[:, 3:6]) * torch.polar(torch.ones_like(angle), angle)
    expected = torch.cat((turned.real, turned.imag, x[:, 6:]), dim=-1)
    torch.testing.assert_close(reference.rotary(x, cosine, sine), expected)


def test_the_two_gelus() -> None:
    x = torch.linspace(-4, 4, 101, dtype=FP64)
    torch.testing.assert_close(reference.gelu_erf(x), x * (1 + torch.erf(x / math.sqrt(2))) / 2)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    torch.testing.assert_close(reference.gelu_tanh(x), x / 2 * (1 + torch.tanh(inner)))
    assert 1e-4 < (reference.gelu_erf(x) - reference.gelu_tanh(x)).abs().max() < 1e-3


def test_gated_multiplies_with_the_activated_gate() -> None:
    up, gate = random(4, 6), random(4, 6) * 2
    torch.testing.assert_close(reference.gated(up, gate, torch.nn.functional.silu), up * gate / (1 + torch.exp(-gate)))


def test_causal_softmax_shows_the_last_query_all_keys_and_each_before_it_one_less() -> None:
    scores = random(2, 3, 2, 4)
    weights = reference.causal_softmax(scores, scale=0.5)
    torch.testing.assert_close(weights[:, :, 1], (scores[:, :, 1] / 2).softmax(dim=-1))
    torch.testing.assert_close(weights[:, :, 0, :3], (scores[:, :, 0, :3] / 2).softmax(dim=-1))
    assert not weights[:, :, 0, 3].any()


def test_masked_softmax_leaves_out_what_is_hidden_and_has_no_answer_where_all_is() -> None:
    scores, hidden = random(2, 3, 2, 4), torch.zeros(2, 1, 2, 4, dtype=torch.bool)
    hidden[0, 0, 0, 1] = hidden[1, 0, 1] = True
    weights = reference.masked_softmax(scores, hidden)
    kept = scores[0, :, 0, [0, 2, 3]].softmax(dim=-1)
    torch.testing.assert_close(weights[0, :, 0, [0, 2, 3]], kept)
    assert not weights[0, :, 0, 1].any()
    assert weights[1, :, 1].isnan().all()


def test_statistics_and_gradient_are_those_of_cross_entropy() -> None:
    logits, labels = random(3, 6) * 3, torch.tensor([4, 0, 2])
    real = logits[:, :5].clone().requires_grad_()  # the sixth column is padding
    losses = torch.nn.functional.cross_entropy(real, labels, reduction="none")
    coefficients = torch.tensor([0.5, 2.0, 0.0], dtype=FP64)
    (losses * coefficients).sum().backward()
    maximum, exponentials, label_logit = reference.softmax_statistics(logits, labels, real=5)
    log_partition = maximum + exponentials.log()
    torch.testing.assert_close(log_partition - label_logit, losses)
    replaced = reference.softmax_gradient_(logits, labels, log_partition, coefficients, real=5)
    assert replaced is logits
    torch.testing.assert_close(logits[:, :5], real.grad)
    assert not logits[:, 5].any()


def test_a_label_elsewhere_is_no_columns_label() -> None:
    logits, labels = random(3, 6), torch.tensor([-1, 6, 5])
    _, _, label_logit = reference.softmax_statistics(logits, labels, real=5)
    assert not label_logit.any()
    maximum, exponentials, _ = reference.softmax_statistics(logits, labels, real=0)
    assert maximum.isneginf().all()
    assert not exponentials.any()
    zeros = torch.zeros(3, dtype=FP64)
    gradients = reference.softmax_gradient_(logits.clone(), labels, zeros, zeros + 1, real=5)
    torch.testing.assert_close(gradients[:, :5], logits[:, :5].exp())


HALF_CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "layer_norm": lambda x, weight: reference.layer_norm(x, weight, weight, epsilon=1e-5),
    "rms_norm": lambda x, weight: reference.rms_norm(x, weight, epsilon=1e-5),
    "scale_norm": lambda x, weight: reference.scale_norm(x, weight[:1], epsilon=1e-5),
    "rotary": lambda x, weight: reference.rotary(x, weight.float().cos(), weight.float().sin()),
}


@pytest.mark.parametrize("name", HALF_CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_fp32_result_rounded_once(name: str, dtype: torch.dtype) -> None:
    x, weight = (random(16, 64) * 3).to(dtype), random(64).to(dtype)
    result = HALF_CASES[name](x, weight)
    assert result.dtype == dtype
    expected = HALF_CASES[name](x.float(), weight.float())
    # Rounding twice would be off by one unit in the last place here and there; allow fp32's own order of summation only.
    differs = result != expected.to(dtype)
    assert differs.float().mean() < 0.002
