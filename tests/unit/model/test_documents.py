"""Packed documents that are kept apart give the loss and the gradients of the same documents each alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention

from megatron.model.attention import flash, flash_packages, flex
from megatron.model.attention.mask import causal_mask
from megatron.model.documents import Documents
from tests.unit.model.builders import VARIANTS, build_args, build_model
from tests.unit.model.packed import ALONE, MASK_ALONE, TOGETHER, documents_of, gradients_of, packed

NUMBERS = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1]])
CORES = ("global", "flash", "flash with a mask", "flex with blocks")
SHAPES = [
    {"pos_emb": pos_emb, "num_kv_heads": kv_heads, "sliding_window_width": window}
    for pos_emb in ("learned", "rotary")
    for kv_heads in (4, 2)
    for window in (None, 3)
] + [{"pos_emb": "alibi", "num_kv_heads": 2, "sliding_window_width": 6}]


@pytest.fixture
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an attention core; on a GPU, flash has a mask and flex its blocks, which torch's uncompiled functions compute here."""
    name, _, on_gpu = str(request.param).partition(" ")
    if name == "flash" and on_gpu:
        monkeypatch.setattr(flash, "_small_calls_are_cheap", lambda query: False)
    if name == "flex":
        uncompiled = SimpleNamespace(attention=flex_attention.flex_attention, blocks=flex_attention.create_block_mask)
        monkeypatch.setattr(flex, "_compiled", lambda: uncompiled)
        monkeypatch.setattr(flex, "_is_served", lambda query: True)
        # On a CPU only the uncompiled function has a backward pass, and torch refuses it together with the compiled one's.
        monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
        monkeypatch.setattr(flex_attention, "_warn_once", lambda *words, **options: None)
    return name


def difference(found: tuple[Tensor, dict[str, Any]], expected: tuple[Tensor, dict[str, Any]]) -> float:
    """The largest absolute error of the loss and of any gradient."""
    assert set(found[1]) == set(expected[1])
    errors = [(found[1][name] - value).abs().max() for name, value in expected[1].items()]
    return max(float(error) for error in (*errors, (found[0] - expected[0]).abs()))


@pytest.mark.parametrize("core", CORES, indirect=True)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: " ".join(map(str, shape.values())))
def test_documents_kept_apart_are_documents_alone(core: str, shape: dict[str, Any]) -> None:
    model = build_model(build_args(attention_config=[[[core], "all"]], **shape))
    expected = gradients_of(model, list(documents_of(packed(ALONE))))
    assert difference(gradients_of(model, [packed(ALONE)]), expected) < 1e-12
    assert difference(gradients_of(model, [packed(TOGETHER)]), expected) > 1e-2


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_architecture_keeps_documents_apart(variant: str) -> None:
    model = build_model(build_args(**VARIANTS[variant]))
    expected = gradients_of(model, list(documents_of(packed(ALONE))))
    assert difference(gradients_of(model, [packed(ALONE)]), expected) < 1e-12


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_layers_computed_again_keep_documents_apart(variant: str, every: int) -> None:
    args = build_args(**VARIANTS[variant])
    expected = gradients_of(build_model(args), [packed(ALONE)])
    assert difference(gradients_of(build_model(args, checkpoint_num_layers=every), [packed(ALONE)]), expected) < 1e-14


@pytest.mark.parametrize("core", CORES, indirect=True)
def test_rotations_need_no_positions_that_restart_but_learned_ones_do(core: str) -> None:
    def error(pos_emb: str) -> float:
        model = build_model(build_args(pos_emb=pos_emb, attention_config=[[[core], "all"]]))
        alone = gradients_of(model, list(documents_of(packed(ALONE))))
        return difference(gradients_of(model, [packed(MASK_ALONE)]), alone)

    assert error("rotary") < 1e-6  # the angles are fp32
    assert error("learned") > 1e-2


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: " ".join(map(str, shape.values())))
def test_the_flash_attn_package_is_told_the_documents(monkeypatch: pytest.MonkeyPatch, shape: dict[str, Any]) -> None:
    calls: list[list[int]] = []

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        alibi_slopes: Tensor | None = None,
    ) -> Tensor:
        """A stand-in with the package's documented arguments: tokens [total, heads, d], each document by itself."""
        assert causal
        assert dropout_p == 0.0
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert torch.equal(cu_seqlens_q, cu_seqlens_k)
        assert (q.dim(), k.shape) == (3, v.shape)
        borders = cu_seqlens_q.tolist()
        assert (borders[0], borders[-1]) == (0, len(q))
        calls.append(borders)
        before = window_size[0]
        assert window_size[1] == (-1 if before < 0 else 0)
        mixed = []
        for begin, end in pairwise(borders):
            length = end - begin
            assert 0 < length <= min(max_seqlen_q, max_seqlen_k)
            seen = causal_mask(length, length, window=None if before < 0 else before + 1, device=q.device)
            mask = torch.zeros(q.shape[1], length, length, dtype=q.dtype).masked_fill(~seen, float("-inf"))
            if alibi_slopes is not None:
                assert (alibi_slopes.shape, alibi_slopes.dtype) == ((q.shape[1],), torch.float32)
                places = torch.arange(length)
                mask -= alibi_slopes[:, None, None] * (places[:, None] - places).abs()
            heads = (x[begin:end].transpose(0, 1) for x in (q, k, v))
            mixed.append(F.scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=True).transpose(0, 1))
        return torch.cat(mixed)

    def flash_attn_func(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("documents would see each other")

    reference = build_model(build_args(attention_config=[[["global"], "all"]], **shape))
    expected = gradients_of(reference, [packed(ALONE)])
    package = flash_packages.FlashAttn(flash_attn_func, flash_attn_varlen_func)
    monkeypatch.setattr(flash, "fitting_package", lambda query, *, has_slopes: package)
    model = build_model(build_args(attention_config=[[["flash"], "all"]], **shape))
    assert difference(gradients_of(model, [packed(ALONE)]), expected) < 1e-12
    assert calls == [[0, 5, 6, 12, 16, 17, 24, 32]] * 2  # once a layer


def test_the_forms_of_documents_agree() -> None:
    documents = Documents(NUMBERS)
    for window in (None, 1, 2, 9):
        hidden = documents.hidden_keys(window)
        for row in range(2):
            for query in range(6):
                seen = [
                    key
                    for key in range(query + 1)
                    if NUMBERS[row, key] == NUMBERS[row, query] and (window is None or query - key < window)
                ]
                assert (~hidden[row, 0, query]).nonzero().flatten().tolist() == seen
        bias = documents.bias(window, torch.float32)
        assert torch.equal(bias == 0, ~hidden)
        assert torch.equal(bias.isneginf(), hidden)
    assert documents.cumulative_lengths().tolist() == [0, 2, 5, 6, 7, 12]
    assert documents.lengths == [[2, 3, 1], [1, 5]]
    assert Documents.of(None) is None


def test_all_layers_share_one_mask() -> None:
    documents = Documents(NUMBERS)
    assert documents.bias(None, torch.float32) is documents.bias(None, torch.float32)
    assert documents.hidden_keys(3) is documents.hidden_keys(3)
    assert documents.bias(None, torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("core", "dtype", "masks"),
    [("global", torch.bool, 1), ("flash with a mask", torch.float64, 1), ("flash", torch.float64, 0)],
    indirect=["core"],
)
def test_the_backward_pass_keeps_one_mask_for_all_layers(core: str, dtype: torch.dtype, masks: int) -> None:
    """Of what autograd keeps, the masks [b, 1, s, s] of all layers are one piece of memory."""
    model = build_model(build_args(num_layers=4, attention_config=[[[core], "all"]]))
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.dtype == dtype and tensor.shape[-2:] == (16, 16) and tensor.numel() == 2 * 16 * 16:
            kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        gradients_of(model, [packed(ALONE)])
    assert len(kept) == masks


@pytest.mark.parametrize("core", ["flex with blocks"], indirect=True)
@pytest.mark.parametrize(("positions", "window"), [("learned", None), ("learned", 3), ("alibi", None), ("alibi", 3)])
def test_a_window_alone_and_distances_are_blocks_too(
    core: str, positions: str, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    attend = flex_attention.flex_attention

    def count(*tensors: Tensor, **options: Any) -> Any:
        calls.append(1)
        return attend(*tensors, **options)

    uncompiled = SimpleNamespace(attention=count, blocks=flex_attention.create_block_mask)
    monkeypatch.setattr(flex, "_compiled", lambda: uncompiled)
    shape = {"pos_emb": positions, "sliding_window_width": window, "num_kv_heads": 2}
    whole = replace(packed(TOGETHER), document_ids=None)
    expected = gradients_of(build_model(build_args(attention_config=[[["global"], "all"]], **shape)), [whole])
    found = gradients_of(build_model(build_args(attention_config=[[[core], "all"]], **shape)), [whole])
    assert difference(found, expected) < 1e-12
    assert len(calls) == (0 if (positions, window) == ("learned", None) else 2)


@pytest.mark.parametrize("core", ["flex with blocks"], indirect=True)
def test_the_blocks_of_documents_are_found_once_for_all_layers(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    find = flex.document_blocks

    def count(numbers: Tensor, window: int | None) -> Any:
        found.append(1)
        return find(numbers, window)

    monkeypatch.setattr(flex, "document_blocks", count)
    model = build_model(build_args(num_layers=4, attention_config=[[[core], "all"]]))
    gradients_of(model, [packed(ALONE)])
    assert len(found) == 1


def test_a_mask_meets_no_groups_of_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would take its kernel that writes all scores on a GPU."""
    attend = F.scaled_dot_product_attention

    def check(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        assert options["attn_mask"] is not None
        assert query.shape == key.shape == value.shape
        return attend(query, key, value, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", check)
    monkeypatch.setattr(flash, "_small_calls_are_cheap", lambda query: False)
    monkeypatch.setattr(flash, "_takes_any_mask", lambda query: False)
    for positions in ("learned", "alibi"):
        model = build_model(build_args(attention_config=[[["flash"], "all"]], num_kv_heads=2, pos_emb=positions))
        gradients_of(model, [packed(ALONE)])


def test_rows_of_one_document_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    attend = F.scaled_dot_product_attention

    def count(query: Tensor, *arguments: Any, **options: Any) -> Tensor:
        calls.append(tuple(query.shape))
        return attend(query, *arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", count)
    model = build_model(build_args(attention_config=[[["flash"], "all"]]))
    batch = packed(ALONE)
    whole = replace(packed(TOGETHER), document_ids=torch.zeros_like(batch.tokens))
    expected = gradients_of(model, [packed(TOGETHER)])
    assert difference(gradients_of(model, [whole]), expected) < 1e-12
    assert calls == [(2, 4, 16, 8)] * 4
    calls.clear()
    gradients_of(model, [batch])
    assert [shape[2] for shape in calls] == [5, 1, 6, 4, 1, 7, 8] * 2
