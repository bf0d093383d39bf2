"""What computes `flash` attention: blocks on a CPU, a flash-attn package on a GPU, torch's kernel, or the one that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.errors import NeoXError
from megatron.model.attention import flash, flash_packages
from megatron.model.attention.flash import FlashAttention
from megatron.model.attention.mask import causal_mask
from megatron.model.positions.alibi import AlibiPositions
from megatron.model.spec import BuildContext
from tests.unit.model.attention.test_attention import HEAD, HEADS, build
from tests.unit.model.builders import build_args, build_model
from tests.unit.model.packed import ALONE, gradients_of, packed

BF16, FP32, FP16 = torch.bfloat16, torch.float32, torch.float16
SHORT, LONG = 8 * HEAD, 8 * HEAD + 1
ALIBI = AlibiPositions(LONG, HEAD)


def core(dtype: torch.dtype, **options: Any) -> FlashAttention:
    attention = build("flash", context=BuildContext(dtype=dtype), **options)
    assert isinstance(attention, FlashAttention)
    return attention


def inputs(dtype: torch.dtype, length: int, rows: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, HEADS, length, HEAD, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize(
    ("dtype", "length", "options", "expected"),
    [
        (BF16, SHORT, {}, "kept"),
        (BF16, LONG, {}, "torch"),
        (FP32, SHORT, {}, "torch"),
        (BF16, SHORT, {"recompute_scores": True}, "again"),
        (FP32, SHORT, {"window": 5}, "kept"),
        (FP32, LONG, {"window": 5}, "again"),
        (FP32, LONG, {"window": LONG}, "torch"),
        (FP32, LONG, {"positions": ALIBI}, "again"),
        (FP16, SHORT, {"positions": ALIBI}, "torch"),
        (BF16, SHORT, {"sdpa_backend": "flash"}, "torch"),
        (FP32, SHORT, {"sdpa_backend": "math", "window": 5}, "torch"),
    ],
)
def test_a_cpu_trains_by_blocks_where_they_are_faster(
    dtype: torch.dtype, length: int, options: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    used = []
    attend = flash.blockwise_attention

    def count(*tensors: Tensor, keep_weights: bool, **options: Any) -> Tensor:
        used.append("kept" if keep_weights else "again")
        return attend(*tensors, keep_weights=keep_weights, **options)

    monkeypatch.setattr(flash, "blockwise_attention", count)
    attention, tensors = core(dtype, **options), inputs(dtype, length)
    trained = attention.attend(*tensors, None)
    assert used == ([] if expected == "torch" else [expected])
    used.clear()
    evaluated = attention.eval().attend(*tensors, None)
    assert not used
    torch.testing.assert_close(trained, evaluated, atol=4 * torch.finfo(dtype).eps, rtol=0)


def test_cpus_that_multiply_tiles_of_bf16_leave_plain_attention_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(flash, "blockwise_attention", None)
    core(BF16).attend(*inputs(BF16, SHORT), None)


@pytest.mark.parametrize("backend", ["flash", "math"])
@pytest.mark.parametrize("options", [{}, {"window": 3}, {"num_kv_heads": 2}], ids=str)
def test_every_kernel_gives_the_gradients_of_global(backend: str, options: dict[str, Any]) -> None:
    def gradients(name: str, **backends: str) -> list[Tensor]:
        attention = build(name, **options, **backends)
        tensors = [tensor.requires_grad_() for tensor in inputs(torch.float64, 6)]
        tensors[1:] = [tensor[:, : attention._local_kv_heads] for tensor in tensors[1:]]
        return list(torch.autograd.grad(attention.attend(*tensors, None).square().sum(), tensors))

    found, expected = gradients("flash", sdpa_backend=backend), gradients("global")
    torch.testing.assert_close(found, expected)


def test_only_the_kernel_that_was_asked_for_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """And any that fits computes what is not training, where a cache may need a mask."""
    allowed = []
    attend = F.scaled_dot_product_attention

    def note(*tensors: Tensor, **options: Any) -> Tensor:
        cuda = torch.backends.cuda
        allowed.append((cuda.flash_sdp_enabled(), cuda.math_sdp_enabled(), cuda.mem_efficient_sdp_enabled()))
        return attend(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", note)
    attention, tensors = core(FP32, sdpa_backend="math"), inputs(FP32, 6)
    attention.attend(*tensors, None)
    attention.eval().attend(*tensors, None)
    assert allowed == [(False, True, False), (True, True, True)]


@pytest.mark.parametrize("backend", ["cudnn", "efficient"])
def test_a_kernel_that_cannot_is_one_sentence(backend: str) -> None:
    attention, tensors = core(BF16, sdpa_backend=backend), inputs(BF16, 6)
    expected = (
        f'"sdpa_backend" {backend} cannot compute attention of 4 query and 4 key/value heads of 8 channels in bfloat16, '
        'without a mask, on this cpu: set it to "auto", which takes a kernel that can'
    )
    with pytest.raises(NeoXError, match=f"^{expected}$"):
        attention.attend(*tensors, None)
    attention.eval().attend(*tensors, None)


def test_other_errors_of_torch_stay_what_they_are() -> None:
    query, key, value = inputs(FP32, 6)
    with pytest.raises(RuntimeError) as raised:
        core(FP32, sdpa_backend="math").attend(query, key, value[..., :4, :], None)
    assert not isinstance(raised.value, NeoXError)


def flash_attn_3_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: Tensor | None = None,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    window_size: tuple[int, int] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Tensor:
    """A stand-in with the arguments of FlashAttention 3: [b, s, heads, d]; neither dropout nor slopes."""
    assert causal
    before, after = window_size
    assert after == (-1 if before < 0 else 0)
    mask = causal_mask(q.shape[1], q.shape[1], window=None if before < 0 else before + 1, device=q.device)
    heads = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=True).transpose(1, 2)


def flash_attn_3_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    **others: Any,
) -> Tensor:
    """Documents one after the other, [total, heads, d]."""
    assert not others
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    pieces = (
        flash_attn_3_func(*(x[None, begin:end] for x in (q, k, v)), causal=causal, window_size=window_size)[0]
        for begin, end in pairwise(cu_seqlens_q.tolist())
    )
    return torch.cat(list(pieces))


def with_sums(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, None]]:
    """As versions before the middle of 2025 answer."""
    return lambda *tensors, **options: (function(*tensors, **options), None)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Says which packages there are: module name -> its two functions."""

    def install(**modules: tuple[Any, Any]) -> None:
        for name in ("flash_attn", "flash_attn_interface"):
            functions = modules.get(name)
            names = ("flash_attn_func", "flash_attn_varlen_func")
            module = None if functions is None else SimpleNamespace(**dict(zip(names, functions, strict=True)))
            monkeypatch.setitem(sys.modules, name, module)
        clear()

    def clear() -> None:
        flash_packages.find_flash_attn_2.cache_clear()
        flash_packages.find_flash_attn_3.cache_clear()

    yield install
    clear()


TWO, THREE = (len, len), (flash_attn_3_func, flash_attn_3_varlen_func)


@pytest.mark.parametrize(
    ("capability", "channels", "has_slopes", "installed", "expected"),
    [
        ((9, 0), 64, False, {"flash_attn": TWO, "flash_attn_interface": THREE}, 3),
        ((9, 0), 64, False, {"flash_attn_interface": THREE}, 3),
        ((9, 0), 64, False, {"flash_attn": TWO}, 2),
        ((9, 0), 64, True, {"flash_attn": TWO, "flash_attn_interface": THREE}, 2),
        ((9, 0), 64, True, {"flash_attn_interface": THREE}, None),
        ((9, 0), 60, False, {"flash_attn": TWO, "flash_attn_interface": THREE}, 2),
        ((9, 0), 264, False, {"flash_attn": TWO, "flash_attn_interface": THREE}, None),
        ((8, 0), 64, False, {"flash_attn": TWO, "flash_attn_interface": THREE}, 2),
        ((10, 0), 64, False, {"flash_attn_interface": THREE}, None),
        ((9, 0), 64, False, {}, None),
    ],
)
def test_flash_attention_3_is_taken_on_hopper_where_it_can(
    capability: tuple[int, int],
    channels: int,
    has_slopes: bool,
    installed: dict[str, Any],
    expected: int | None,
    packages: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages(**installed)
    monkeypatch.setattr(flash_packages, "_capability", lambda device: capability)
    query: Any = SimpleNamespace(is_cuda=True, dtype=BF16, shape=(1, 2, 8, channels), device=torch.device("cuda", 0))
    found = flash_packages.fitting_package(query, has_slopes=has_slopes)
    wanted = {2: flash_packages.find_flash_attn_2(), 3: flash_packages.find_flash_attn_3(), None: None}[expected]
    assert found is wanted
    assert (found is None) == (expected is None)
    for unfit in ({"dtype": FP32}, {"is_cuda": False}):
        assert flash_packages.fitting_package(SimpleNamespace(**{**vars(query), **unfit}), has_slopes=False) is None


@pytest.mark.parametrize("version", [lambda function: function, with_sums], ids=["today", "with sums"])
@pytest.mark.parametrize("window", [None, 3])
def test_flash_attention_3_is_told_windows_and_documents(
    window: int | None, version: Any, packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(flash_attn_interface=tuple(map(version, THREE)))
    monkeypatch.setattr(flash, "fitting_package", lambda query, *, has_slopes: flash_packages.find_flash_attn_3())
    shape = {"sliding_window_width": window, "num_kv_heads": 2, "pos_emb": "rotary"}
    for kind in (ALONE, None):
        batch = packed(ALONE)
        if kind is None:
            batch = type(batch)(batch.tokens, batch.labels, batch.loss_mask, batch.position_ids)
        losses = []
        for name in ("flash", "global"):
            model = build_model(build_args(attention_config=[[[name], "all"]], **shape))
            losses.append(gradients_of(model, [batch]))
        torch.testing.assert_close(losses[0], losses[1], atol=1e-12, rtol=0)


def test_a_kernel_that_was_asked_for_goes_before_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "fitting_package", lambda query, *, has_slopes: 1 / 0)
    core(FP32, sdpa_backend="flash").attend(*inputs(FP32, 6), None)
