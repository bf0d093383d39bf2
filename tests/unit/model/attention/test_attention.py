"""Both attention cores equal attention written as loops over heads and queries, in both head layouts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.components import ATTENTION
from megatron.errors import NeoXError
from megatron.model.attention import flash, flash_packages
from megatron.model.attention.base import Attention
from megatron.model.attention.head_layout import split_grouped, split_interleaved
from megatron.model.dropout_keys import DropoutKeys
from megatron.model.positions.alibi import AlibiPositions
from megatron.model.positions.base import Positions
from megatron.model.positions.none import NoPositions
from megatron.model.positions.rotary import RotaryPositions
from megatron.model.spec import BuildContext
from megatron.model.stream import Stream
from megatron.mpu.groups import Group
from tests.unit.model.builders import FP64, NORMAL, dropout_keys, perturb

LENGTH, ROWS, HIDDEN, HEADS, HEAD = 6, 2, 32, 4, 8
CORES = ATTENTION.names
X = torch.randn(LENGTH, ROWS, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
POSITION_IDS = torch.arange(LENGTH).expand(ROWS, LENGTH)


def build(
    core: str = "global", *, num_kv_heads: int = HEADS, context: BuildContext = FP64, **options: Any
) -> Attention:
    arguments: dict[str, Any] = {
        "positions": NoPositions(LENGTH, HEAD),
        "head_dim": HEAD,
        "layer": 2,
        "dropout": 0.0,
        "use_bias": True,
        "use_output_bias": True,
        **options,
    }
    attention: Attention = ATTENTION.load(core)(
        hidden_size=HIDDEN,
        num_heads=HEADS,
        num_kv_heads=num_kv_heads,
        init=NORMAL,
        output_init=NORMAL,
        context=context,
        **arguments,
    )
    perturb(attention)
    return attention


def attend(attention: Attention, hidden: Tensor, position_ids: Tensor, keys: DropoutKeys | None = None) -> Tensor:
    output: Tensor = attention(hidden, Stream(hidden, position_ids, dropout_keys=keys))
    return output


def attend_by_loops(attention: Attention, num_kv_heads: int, *, head_dim: int = HEAD, window: int = LENGTH) -> Tensor:
    """[s, b, h]: every head and query by itself, rows of the fused projection picked by number."""
    group = HEADS // num_kv_heads
    fused = F.linear(X, attention.query_key_value.weight, attention.query_key_value.bias)

    def head(row: int) -> Tensor:
        return fused[..., row * head_dim : (row + 1) * head_dim]  # [s, b, d]

    mixed = []
    for i in range(HEADS):
        if num_kv_heads == HEADS:
            query, key, value = head(3 * i), head(3 * i + 1), head(3 * i + 2)
        else:
            query, key, value = head(i), head(HEADS + i // group), head(HEADS + num_kv_heads + i // group)
        columns = []
        for now in range(LENGTH):
            seen = slice(max(now + 1 - window, 0), now + 1)
            scores = (query[now] * key[seen]).sum(-1) / math.sqrt(head_dim)  # [seen, b]
            columns.append((scores.softmax(0).unsqueeze(-1) * value[seen]).sum(0))
        mixed.append(torch.stack(columns))
    return F.linear(torch.cat(mixed, dim=-1), attention.dense.weight, attention.dense.bias)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_attention_equals_loops_over_heads_and_queries(core: str, num_kv_heads: int) -> None:
    attention = build(core, num_kv_heads=num_kv_heads)
    torch.testing.assert_close(attend(attention, X, POSITION_IDS), attend_by_loops(attention, num_kv_heads))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("num_kv_heads", [4, 2])
@pytest.mark.parametrize("head_dim", [5, 12])
def test_heads_may_be_narrower_and_wider_than_their_share_of_the_width(
    core: str, num_kv_heads: int, head_dim: int
) -> None:
    attention = build(core, num_kv_heads=num_kv_heads, head_dim=head_dim)
    assert attention.dense.weight.shape == (HIDDEN, HEADS * head_dim)
    assert attention.query_key_value.weight.shape == ((HEADS + 2 * num_kv_heads) * head_dim, HIDDEN)
    expected = attend_by_loops(attention, num_kv_heads, head_dim=head_dim)
    torch.testing.assert_close(attend(attention, X, POSITION_IDS), expected)


@pytest.mark.parametrize("use_bias", [True, False])
def test_the_output_projection_has_a_bias_of_its_own_choice(use_bias: bool) -> None:
    attention = build(use_bias=use_bias, use_output_bias=not use_bias)
    assert (attention.query_key_value.bias is not None, attention.dense.bias is not None) == (use_bias, not use_bias)
    torch.testing.assert_close(attend(attention, X, POSITION_IDS), attend_by_loops(attention, HEADS))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_a_token_sees_itself_and_the_tokens_just_before_it_within_the_window(core: str, window: int) -> None:
    attention = build(core, num_kv_heads=2, window=window)
    expected = attend_by_loops(attention, 2, window=window)
    torch.testing.assert_close(attend(attention, X, POSITION_IDS), expected)
    torch.testing.assert_close(attend(attention.eval(), X, POSITION_IDS), expected)
    assert (expected - attend_by_loops(attention, 2)).abs().max() > 0.01


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("window", [LENGTH, LENGTH + 1, 1000])
def test_a_window_as_long_as_the_sequence_is_none(core: str, window: int) -> None:
    assert torch.equal(attend(build(core, window=window), X, POSITION_IDS), attend(build(core), X, POSITION_IDS))


def test_the_flash_attn_package_is_told_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the package's documented arguments: [b, s, heads, d], window_size = (keys before, keys after) a query's own."""

    def flash_attn_func(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        assert options.pop("causal") is True
        before, after = options.pop("window_size")
        assert not options
        assert after in (-1, 0)
        behind = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
        seen = (behind >= 0) & ((behind <= before) if before >= 0 else torch.tensor(True))
        heads = (x.transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(*heads, attn_mask=seen, enable_gqa=True).transpose(1, 2)

    expected = {
        window: attend(build("global", num_kv_heads=2, window=window), X, POSITION_IDS) for window in (None, 1, 3, 50)
    }
    package = flash_packages.FlashAttn(flash_attn_func, flash_attn_func)
    monkeypatch.setattr(flash, "fitting_package", lambda query, *, has_slopes: package)
    for window, output in expected.items():
        torch.testing.assert_close(attend(build("flash", num_kv_heads=2, window=window), X, POSITION_IDS), output)


def test_queries_and_keys_are_normalised_each_by_their_own_norm_before_they_are_rotated() -> None:
    class Doubled(nn.Module):
        def forward(self, heads: Tensor) -> Tensor:
            return 2 * heads

    class Shifted(nn.Module):
        def forward(self, heads: Tensor) -> Tensor:
            return heads + 1  # rotations do not commute with this

    positions = RotaryPositions(LENGTH, HEAD)
    attention = build(num_kv_heads=2, positions=positions, query_norm=Doubled(), key_norm=Shifted())
    fused = F.linear(X, attention.query_key_value.weight, attention.query_key_value.bias)
    query, key, value = split_grouped(fused, HEADS, 2)
    query, key = positions.rotate(2 * query, key + 1, POSITION_IDS)
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    expected = attention.dense(mixed.permute(2, 0, 1, 3).flatten(2))
    torch.testing.assert_close(attend(attention, X, POSITION_IDS), expected)


def test_interleaved_and_grouped_layouts_hold_the_same_heads() -> None:
    query, key, value = (torch.randn(ROWS, HEADS, LENGTH, HEAD) for _ in range(3))
    by_sequence = [x.permute(2, 0, 1, 3) for x in (query, key, value)]  # [s, b, n, d]
    interleaved = torch.stack(by_sequence, dim=3).flatten(2)
    grouped = torch.cat(by_sequence, dim=2).flatten(2)
    for fused, split in ((interleaved, split_interleaved), (grouped, split_grouped)):
        for found, expected in zip(split(fused, HEADS, HEADS), (query, key, value), strict=True):
            assert torch.equal(found, expected)


def test_grouped_query_attention_equals_multi_head_attention_with_repeated_heads() -> None:
    grouped, multi_head = build(num_kv_heads=2), build()
    query, key, value = grouped.query_key_value.weight.split((HEADS * HEAD, 2 * HEAD, 2 * HEAD))
    key, value = (x.view(2, HEAD, HIDDEN).repeat_interleave(2, dim=0) for x in (key, value))
    interleaved = torch.stack((query.view(HEADS, HEAD, HIDDEN), key, value), dim=1).flatten(0, 2)
    with torch.no_grad():
        multi_head.query_key_value.weight.copy_(interleaved)
        multi_head.dense.weight.copy_(grouped.dense.weight)
        for bias in (grouped.query_key_value.bias, multi_head.query_key_value.bias):
            bias.zero_()
        multi_head.dense.bias.copy_(grouped.dense.bias)
    torch.testing.assert_close(attend(grouped, X, POSITION_IDS), attend(multi_head, X, POSITION_IDS))


@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_every_core_gives_the_values_and_gradients_of_global(num_kv_heads: int) -> None:
    results = {}
    for core in CORES:
        attention = build(core, num_kv_heads=num_kv_heads, positions=RotaryPositions(LENGTH, HEAD))
        x = X.clone().requires_grad_()
        output = attend(attention, x, POSITION_IDS)
        output.square().sum().backward()
        results[core] = [output, x.grad, *(parameter.grad for parameter in attention.parameters())]
    for core in CORES:
        for found, expected in zip(results[core], results["global"], strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("core", CORES)
def test_no_query_sees_later_tokens(core: str) -> None:
    attention = build(core)
    changed = X.clone()
    changed[4:] += 1
    before, after = attend(attention, X, POSITION_IDS), attend(attention, changed, POSITION_IDS)
    torch.testing.assert_close(before[:4], after[:4])
    assert (before[4] - after[4]).abs().max() > 0.01


@pytest.mark.parametrize("core", CORES)
def test_rotary_attention_depends_on_distances_only(core: str) -> None:
    attention = build(core, positions=RotaryPositions(4 * LENGTH, HEAD, rotary_base=10))
    expected = attend(attention, X, POSITION_IDS)
    torch.testing.assert_close(attend(attention, X, POSITION_IDS + 10), expected, atol=1e-5, rtol=0)
    assert (attend(attention, X, POSITION_IDS * 2) - expected).abs().max() > 0.01


@pytest.mark.parametrize("positions", [NoPositions(LENGTH, HEAD), AlibiPositions(LENGTH, HEAD)], ids=["none", "alibi"])
def test_query_key_layer_scaling_does_not_change_the_result(positions: Positions) -> None:
    torch.testing.assert_close(
        attend(build(query_key_layer_scaling=True, positions=positions), X, POSITION_IDS),
        attend(build(query_key_layer_scaling=False, positions=positions), X, POSITION_IDS),
    )


def test_query_key_layer_scaling_keeps_large_fp16_scores_finite() -> None:
    half = BuildContext(dtype=torch.float16)
    query, key = (torch.full((1, HEADS, 2, HEAD), size, dtype=torch.float16) for size in (400.0, 100.0))
    for scaling, is_finite in ((True, True), (False, False)):
        attention = build(context=half, query_key_layer_scaling=scaling)
        assert attention.attend(query, key, key, None).isfinite().all() == is_finite


def test_the_softmax_of_half_precision_scores_is_computed_in_fp32() -> None:
    shape = (1, HEADS, 64, HEAD)
    query, key, value = (torch.randn(shape, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(3))
    scores = (query / math.sqrt(HEAD)) @ key.mT
    causal = torch.ones(64, 64, dtype=torch.bool).tril()
    weights = scores.float().masked_fill(~causal, float("-inf")).softmax(-1).bfloat16()
    result = build(context=BuildContext(dtype=torch.bfloat16)).attend(query, key, value, None)
    torch.testing.assert_close(result, weights @ value, atol=0, rtol=0)


@pytest.mark.parametrize("core", CORES)
def test_attention_dropout_acts_in_training_only(core: str) -> None:
    attention = build(core, dropout=0.5)
    plain = attend(build(core), X, POSITION_IDS)
    dropped = attend(attention, X, POSITION_IDS, dropout_keys())
    assert (dropped - plain).abs().max() > 0.01
    torch.testing.assert_close(attend(attention.eval(), X, POSITION_IDS), plain)


@pytest.mark.parametrize("settings", [{}, {"num_kv_heads": 2}, {"window": 3}])
def test_all_cores_drop_the_same_weights(settings: dict[str, Any]) -> None:
    dropped = [attend(build(core, dropout=0.5, **settings), X, POSITION_IDS, dropout_keys()) for core in CORES]
    for other in dropped[1:]:
        assert torch.equal(other, dropped[0])


def test_dropout_without_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the dropout_keys of its samples"):
        attend(build(dropout=0.5), X, POSITION_IDS)


def test_heads_that_do_not_divide_among_context_ranks_are_refused() -> None:
    context = BuildContext(context_group=Group(0, 3, (0, 1, 2)))
    with pytest.raises(NeoXError, match=f'the {HEADS} query heads .* do not divide over "context_parallel_size" 3'):
        build(context=context)


def test_heads_that_do_not_divide_among_the_ranks_are_refused() -> None:
    context = BuildContext(tensor_group=Group(0, 4, (0, 1, 2, 3)))
    with pytest.raises(NeoXError, match='"num_kv_heads" 2 do not fit "model_parallel_size" 4'):
        build(num_kv_heads=2, context=context)
