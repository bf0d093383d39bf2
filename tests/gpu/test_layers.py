"""Every norm, activation, position scheme and attention core computes on the GPU what it computes on the CPU, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from megatron.components import ACTIVATIONS, ATTENTION, NORMS
from megatron.model.activations import build_activation
from megatron.model.attention.base import Attention
from megatron.model.positions.none import NoPositions
from megatron.model.positions.rotary import RotaryPositions, rotary_table
from megatron.model.spec import BuildContext
from megatron.model.stream import Stream
from tests.gpu.compare import CPU, FP32_LIMIT, furthest, output_and_gradients
from tests.unit.model.builders import NORMAL, perturb

pytestmark = pytest.mark.gpu

LENGTH, ROWS, HIDDEN, HEADS, HEAD = 48, 2, 128, 4, 32
X = 0.3 * torch.randn(LENGTH, ROWS, HIDDEN, generator=torch.Generator().manual_seed(0))
HALF = (torch.bfloat16, torch.float16)

Layer = Callable[[Tensor], Tensor]


def norm(name: str, context: BuildContext) -> Layer:
    layer = NORMS.load(name)(HIDDEN, epsilon=1e-5, use_bias=True, context=context)
    perturb(layer)
    return layer


def activation(name: str, context: BuildContext, *, tanh_gelu: bool = False) -> Layer:
    return build_activation(name, tanh_gelu=tanh_gelu)


def rotary(fraction: float, context: BuildContext) -> Layer:
    positions = RotaryPositions(LENGTH, HEAD, rotary_fraction=fraction)

    def rotate(hidden: Tensor) -> Tensor:
        heads = hidden.unflatten(-1, (HEADS, HEAD)).permute(1, 2, 0, 3)
        query, key = positions.rotate(heads, 2 * heads, position_ids(hidden.device))
        return query + key

    return rotate


def attention(core: str, context: BuildContext, *, num_kv_heads: int = HEADS, **options: Any) -> Attention:
    layer: Attention = ATTENTION.load(core)(
        hidden_size=HIDDEN,
        num_heads=HEADS,
        num_kv_heads=num_kv_heads,
        head_dim=HEAD,
        use_output_bias=True,
        init=NORMAL,
        output_init=NORMAL,
        context=context,
        **{"layer": 1, "positions": RotaryPositions(LENGTH, HEAD), "dropout": 0.0, "use_bias": True, **options},
    )
    perturb(layer)
    return layer


def position_ids(device: torch.device) -> Tensor:
    return torch.arange(LENGTH, device=device).expand(ROWS, LENGTH)


def runnable(layer: Layer, device: torch.device) -> Layer:
    """The layer as a function of hidden states alone."""
    if isinstance(layer, Attention):
        places = position_ids(device)
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0], Stream(inputs[0], places)))
    return layer


LAYERS: dict[str, Callable[[BuildContext], Layer]] = {
    **{f"norm {name}": partial(norm, name) for name in NORMS.names if NORMS.requirement(name) is None},
    **{f"activation {name}": partial(activation, name) for name in ACTIVATIONS.names},
    "activation gelu by tanh": partial(activation, "gelu", tanh_gelu=True),
    **{f"rotary {fraction}": partial(rotary, fraction) for fraction in (0.25, 1.0)},
    **{
        f"{core} attention with {num_kv_heads} kv heads": partial(attention, core, num_kv_heads=num_kv_heads)
        for core in ATTENTION.names
        for num_kv_heads in (4, 2, 1)
    },
    "global attention, scores divided by the layer": partial(attention, "global", query_key_layer_scaling=True),
}


def run(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    layer = runnable(LAYERS[name](BuildContext(dtype=dtype, device=device)), device)
    return output_and_gradients(layer, X, device=device, dtype=dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_in_fp32_what_it_computes_on_the_cpu(name: str, device: torch.device) -> None:
    error, where = furthest(run(name, device), run(name, CPU))
    assert error <= FP32_LIMIT, where


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_half_precision_approximates_fp32(name: str, dtype: torch.dtype, device: torch.device) -> None:
    error, where = furthest(run(name, device, dtype), run(name, CPU))
    assert error <= 4 * torch.finfo(dtype).eps, where


def test_rotary_tables_are_those_of_the_cpu_also_for_long_sequences(device: torch.device) -> None:
    """An angle is below its position, and the devices may round powers differently: three units in the last place of fp32."""
    length = 8192
    found, expected = (rotary_table(64, length, 10000, (), each) for each in (device, CPU))
    assert found.dtype == torch.float32
    assert (found.cpu() - expected).abs().max() <= 3 * torch.finfo(torch.float32).eps * length


@pytest.mark.parametrize("num_kv_heads", [4, 2])
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_flash_attention_trains_with_torchs_flash_kernel(
    dtype: torch.dtype, num_kv_heads: int, device: torch.device
) -> None:
    """With every other kernel forbidden: a mask, a stride or a type that flash attention cannot take would be an error."""
    context = BuildContext(dtype=dtype, device=device)
    layer = attention("flash", context, num_kv_heads=num_kv_heads, positions=NoPositions(LENGTH, HEAD))
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        results = output_and_gradients(runnable(layer, device), X, device=device, dtype=dtype)
    assert all(value.isfinite().all() for value in results.values())


@pytest.mark.parametrize("core", ATTENTION.names)
def test_every_core_takes_heads_as_context_ranks_trade_them(core: str, device: torch.device) -> None:
    """Queries, keys and values side by side in one message, sequence first: two query heads that share a key head, to torch's kernels."""

    def attend(layer: Attention, message: Tensor) -> Tensor:
        heads = message.unflatten(-1, (HEADS, HEAD)).permute(1, 2, 0, 3)
        return layer.attend(*heads.split((2, 1, 1), dim=1), None)

    results = [
        output_and_gradients(
            partial(attend, attention(core, BuildContext(dtype=dtype, device=place))), X, device=place, dtype=dtype
        )
        for place, dtype in ((device, torch.bfloat16), (CPU, torch.float32))
    ]
    error, where = furthest(*results)
    assert error <= 4 * torch.finfo(torch.bfloat16).eps, where


def test_flash_attention_never_holds_all_scores(device: torch.device) -> None:
    length, heads = 4096, 8
    query, key, value = (
        torch.randn(1, heads, length, HEAD, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )
    layer = attention("flash", BuildContext(dtype=torch.bfloat16, device=device))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    layer.attend(query, key, value, None).sum().backward()
    scores = heads * length * length * query.element_size()
    assert torch.cuda.max_memory_allocated(device) - before < scores / 4
