"""Scores lose the slope of their head for each token of distance: by hand, in every core, and in one tensor for all layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.components import ATTENTION
from megatron.model.attention import distance_bias, flash, flash_packages
from megatron.model.attention.base import Attention
from megatron.model.attention.distance_bias import DistanceBias
from megatron.model.attention.head_layout import split_grouped, split_interleaved
from megatron.model.cache import KeyValueCache
from megatron.model.documents import Documents
from megatron.model.positions.alibi import AlibiPositions, alibi_slopes
from megatron.model.spec import BuildContext
from megatron.mpu.groups import Group
from tests.unit.model.attention.test_attention import HEAD, HEADS, LENGTH, POSITION_IDS, ROWS, X, attend, build
from tests.unit.model.builders import build_args, build_model, dropout_keys, random_batch
from tests.unit.model.packed import ALONE, gradients_of, packed

CORES = ATTENTION.names
INFINITY = float("inf")
SLOPES = [1 / 4, 1 / 16, 1 / 64, 1 / 256]  # of HEADS


def with_alibi(core: str = "global", **options: Any) -> Attention:
    return build(core, positions=AlibiPositions(LENGTH, HEAD), **options)


def attend_by_loops(attention: Attention, *, kv_heads: int = HEADS, window: int = LENGTH) -> Tensor:
    """[s, b, h]: each head, query and key by itself, less the distance times the slope."""
    fused = F.linear(X, attention.query_key_value.weight, attention.query_key_value.bias)
    split = split_interleaved if kv_heads == HEADS else split_grouped
    query, key, value = split(fused, HEADS, kv_heads)  # [b, heads, s, d]
    mixed = torch.zeros(ROWS, HEADS, LENGTH, HEAD, dtype=X.dtype)
    for head in range(HEADS):
        source = head // (HEADS // kv_heads)
        for now in range(LENGTH):
            seen = range(max(now + 1 - window, 0), now + 1)
            scores = [
                (query[:, head, now] * key[:, source, then]).sum(-1) / HEAD**0.5 - SLOPES[head] * (now - then)
                for then in seen
            ]
            weights = torch.stack(scores, dim=-1).softmax(-1)  # [b, seen]
            for place, then in enumerate(seen):
                mixed[:, head, now] += weights[:, place, None] * value[:, source, then]
    return F.linear(mixed.permute(2, 0, 1, 3).flatten(2), attention.dense.weight, attention.dense.bias)


def test_slopes_of_a_power_of_two_halve_evenly_down_to_two_to_the_minus_eight() -> None:
    assert alibi_slopes(8) == (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256)
    assert alibi_slopes(4) == tuple(SLOPES)
    assert alibi_slopes(1) == (1 / 256,)


def test_other_numbers_of_heads_go_on_with_every_other_slope_of_the_next_power() -> None:
    assert alibi_slopes(6) == (1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8)
    assert alibi_slopes(3) == (1 / 16, 1 / 256, 1 / 4)
    root = 2**-0.5
    assert alibi_slopes(12) == pytest.approx(
        (*(2.0**-i for i in range(1, 9)), root, root / 2, root / 4, root / 8), rel=1e-15
    )


def test_the_bias_is_the_distance_times_the_slope_and_hides_what_is_not_seen() -> None:
    bias = DistanceBias((0.5, 0.25), window=3)
    causal = bias.of(torch.zeros(1, 2, 4, 1), None, None, torch.float32)
    assert causal.tolist() == [
        [
            [
                [0, -INFINITY, -INFINITY, -INFINITY],
                [-slope, 0, -INFINITY, -INFINITY],
                [-2 * slope, -slope, 0, -INFINITY],
                [-INFINITY, -2 * slope, -slope, 0],
            ]
            for slope in (0.5, 0.25)
        ]
    ]
    one_step = bias.where(torch.tensor([[[[False, True, True]]], [[[True, True, True]]]]), torch.float32)
    assert one_step[:, 1].tolist() == [[[-INFINITY, -0.25, 0]], [[-0.5, -0.25, 0]]]


def test_cores_that_need_other_types_share_no_bias() -> None:
    documents, query = Documents(torch.tensor([[0, 0, 1]])), torch.zeros(1, 2, 3, 1)
    for shared in (None, documents):
        kinds = [
            DistanceBias((0.5, 0.25)).of(query, None, shared, kind).dtype for kind in (torch.float32, torch.bfloat16)
        ]
        assert kinds == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(("kv_heads", "window"), [(4, None), (2, None), (1, 3)])
def test_every_core_equals_loops_over_heads_queries_and_keys(core: str, kv_heads: int, window: int | None) -> None:
    attention = with_alibi(core, num_kv_heads=kv_heads, window=window)
    expected = attend_by_loops(attention, kv_heads=kv_heads, window=window or LENGTH)
    torch.testing.assert_close(attend(attention, X, POSITION_IDS), expected)
    without = attend(build(core, num_kv_heads=kv_heads, window=window), X, POSITION_IDS)
    assert (expected - without).abs().max() > 0.01


def test_layer_scaling_leaves_the_bias_alone() -> None:
    attention = with_alibi(query_key_layer_scaling=True)
    torch.testing.assert_close(attend(attention, X, POSITION_IDS), attend_by_loops(attention))


def test_all_cores_drop_the_same_weights() -> None:
    dropped = [attend(with_alibi(core, dropout=0.5), X, POSITION_IDS, dropout_keys()) for core in CORES]
    assert all(torch.equal(other, dropped[0]) for other in dropped[1:])
    assert (dropped[0] - attend(build(dropout=0.5), X, POSITION_IDS, dropout_keys())).abs().max() > 0.01


def test_ranks_have_the_slopes_of_their_own_heads() -> None:
    def slopes(tensor: int, context: int) -> tuple[float, ...]:
        groups = {
            "tensor_group": Group(tensor, 2, (0, 1)),
            "context_group": Group(context, 2, (0, 1)),
        }
        bias = with_alibi(context=BuildContext(**groups)).distance_bias
        assert bias is not None
        return bias.slopes

    assert [slopes(tensor, context) for tensor in (0, 1) for context in (0, 1)] == [(slope,) for slope in SLOPES]


@pytest.mark.parametrize("core", ["global", "flash"])
def test_half_precision_rounds_neither_distances_nor_biases(core: str) -> None:
    """Of numbers from 512 to 1024 bf16 knows every fourth. Keys that far away are made to outweigh nearer ones, so that those at the distances 513,
    517, ... have a share of the weights that follows from the slope 1/16 of the second head: were distances rounded, it would be 6% larger."""
    length, half = 1024, torch.bfloat16
    attention = with_alibi(core, context=BuildContext(dtype=half))
    distances = length - 1 - torch.arange(length)
    query, key, value = (torch.zeros(1, HEADS, length, HEAD, dtype=half) for _ in range(3))
    query[..., 0] = 1
    key[:, :, distances >= 512, 0] = 128
    value[:, :, (distances >= 512) & (distances % 4 == 1)] = 1
    weights = torch.tensor([1 / 16]).double().neg().mul(torch.arange(4)).exp()
    expected = float(weights[1] / weights.sum())
    found = float(attention.attend(query, key, value, None)[0, 1, -1, 0])
    assert found == pytest.approx(expected, rel=0.005)  # a result in bf16 is as exact as this


@pytest.mark.parametrize("batch", ["whole", "documents"])
@pytest.mark.parametrize("core", ["global", "flash", "flash with a mask"])
def test_the_backward_pass_keeps_one_bias_for_all_layers(
    core: str, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores keep none: a sum needs neither of its parts; nor do blocks, which make it again."""
    name, _, on_gpu = core.partition(" ")
    if on_gpu:
        monkeypatch.setattr(flash, "_small_calls_are_cheap", lambda query: False)
    model = build_model(build_args(num_layers=4, pos_emb="alibi", attention_config=[[[name], "all"]]))
    data = packed(ALONE) if batch == "documents" else random_tokens()
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.dim() == 4 and tensor.isneginf().any():
            kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        gradients_of(model, [data])
    assert len(kept) == (1 if on_gpu else 0)


def random_tokens() -> Any:
    batch = packed(ALONE)
    return type(batch)(batch.tokens, batch.labels, batch.loss_mask, batch.position_ids)


def test_a_step_with_a_cache_makes_its_bias_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    where = DistanceBias.where

    def count(self: DistanceBias, seen: Tensor, dtype: torch.dtype) -> Tensor:
        made.append(seen.shape[-1])
        return where(self, seen, dtype)

    monkeypatch.setattr(DistanceBias, "where", count)
    distance_bias._causal.cache_clear()
    model = build_model(build_args(num_layers=4, pos_emb="alibi", attention_config=[[["global", "flash"], 2]])).eval()
    tokens, *_ = random_batch()
    cache = KeyValueCache(batch_size=2, max_length=8, starts=torch.tensor([0, 2]))
    with torch.inference_mode():
        for count_of_columns in (5, 1, 1):
            model(tokens[:, :count_of_columns], cache.next_position_ids(count_of_columns), cache)
    assert made == [5, 6, 7]


def test_a_bias_made_in_inference_mode_serves_training_later() -> None:
    distance_bias._causal.cache_clear()
    distance_bias._slopes.cache_clear()
    attention = with_alibi("flash")
    with torch.inference_mode():
        attend(attention, X, POSITION_IDS)
    attend(attention, X.clone().requires_grad_(), POSITION_IDS).square().sum().backward()
    assert attention.query_key_value.weight.grad is not None


def test_the_flash_attn_package_is_told_the_slopes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the package's documented arguments: alibi_slopes fp32 [heads], for a bias of -slope |i - j|."""

    def flash_attn_func(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        slopes = options.pop("alibi_slopes")
        assert (slopes.dtype, slopes.shape) == (torch.float32, (HEADS,))
        assert options == {"causal": True, "window_size": (-1, -1)}
        places = torch.arange(LENGTH)
        mask = -slopes[:, None, None] * (places[:, None] - places).abs().to(query.dtype)
        mask = mask.masked_fill(places[:, None] < places, -INFINITY)
        heads = (x.transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    package = flash_packages.FlashAttn(flash_attn_func, flash_attn_func)
    monkeypatch.setattr(flash, "fitting_package", lambda query, *, has_slopes: package if has_slopes else None)
    attention = with_alibi("flash", num_kv_heads=2)
    torch.testing.assert_close(attend(attention, X, POSITION_IDS), attend_by_loops(attention, kv_heads=2))
