"""Tensor cores multiply in 8 bits what the CPU tests prove right, without waiting; and Transformer Engine, where it is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from megatron.components import NORMS
from megatron.errors import NeoXError
from megatron.model.norms.base import Norm
from megatron.model.spec import BuildContext
from megatron.mpu.fp8 import E4M3, E5M2, Fp8Products, check_device, multiply, quantise
from megatron.mpu.groups import SINGLE
from megatron.mpu.linear import ColumnParallelLinear
from megatron.mpu.transformer_engine import LinearProduct
from tests.gpu.compare import CPU, deviation, distance, furthest, never_waiting, output_and_gradients
from tests.unit.model.builders import NORMAL, build_args, build_model, perturb, random_batch

pytestmark = pytest.mark.gpu

ROWWISE = pytest.mark.parametrize("rowwise", [False, True], ids=["tensorwise", "rowwise"])
UNIT = 2**-8  # of bf16
SETTINGS: dict[str, Any] = {"hidden_size": 64, "precision": "bfloat16", "pos_emb": "rotary", "no_weight_tying": True}


@pytest.fixture
def fp8_device(device: torch.device) -> torch.device:
    """The GPU, if it multiplies in 8 bits."""
    try:
        check_device(device)
    except NeoXError as lack:
        pytest.skip(str(lack))
    return device


def values(*sizes: int, seed: int) -> Tensor:
    """Rows of different sizes, in bf16."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*sizes, generator=generator) * torch.logspace(-1, 1, sizes[0])[:, None]).bfloat16()


def layer(device: torch.device, products: Fp8Products | None = None) -> ColumnParallelLinear:
    """[256, 128] in bf16, the same weights on every device."""
    built = ColumnParallelLinear(128, 256, group=SINGLE, init=NORMAL, dtype=torch.bfloat16, device=device)
    perturb(built)
    if products is not None:
        built.products = products
    return built


@ROWWISE
@pytest.mark.parametrize("rows", [1, 21, 256, 1000])
@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("fast_sums", [False, True])
def test_tensor_cores_give_the_product_of_the_rounded_operands(
    rowwise: bool, rows: int, dtype: torch.dtype, fast_sums: bool, fp8_device: torch.device
) -> None:
    """Within the rounding of the result to bf16, and of sums to 14 bits where they may be fast."""
    results = {}
    for device in (CPU, fp8_device):
        a = quantise(values(rows, 512, seed=1).to(device), dtype, rowwise=rowwise)
        b = quantise(values(384, 512, seed=2).to(device), E4M3, rowwise=rowwise)
        bias = values(384, 1, seed=3).flatten().to(device)
        results[device] = multiply(a, b, dtype=torch.bfloat16, bias=bias, fast_sums=fast_sums)
    assert deviation(results[fp8_device], results[CPU]) <= (4 if fast_sums else 1) * UNIT


@ROWWISE
@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_operands_are_rounded_as_on_the_cpu(rowwise: bool, dtype: torch.dtype, fp8_device: torch.device) -> None:
    for x in (values(96, 80, seed=1), values(96, 80, seed=1).T):
        found, expected = (quantise(x.to(device), dtype, rowwise=rowwise) for device in (fp8_device, CPU))
        assert torch.equal(found.values.float().cpu(), expected.values.float())
        assert torch.equal(found.scale.cpu(), expected.scale)


@ROWWISE
@pytest.mark.parametrize("gradient_type", [E4M3, E5M2])
@pytest.mark.parametrize("tokens", [(16, 4), (7, 3)])
def test_a_layer_and_its_gradients_are_those_of_the_cpu(
    rowwise: bool, gradient_type: torch.dtype, tokens: tuple[int, int], fp8_device: torch.device
) -> None:
    x = values(*tokens, seed=1)[..., None] * values(128, 1, seed=2).flatten()
    products = Fp8Products(rowwise, gradient_type)
    found, expected, exact = (
        output_and_gradients(layer(device, of), x, device=device, dtype=torch.bfloat16)
        for device, of in ((fp8_device, products), (CPU, products), (fp8_device, None))
    )
    error, where = furthest(found, expected, measure=distance)
    assert error <= 4 * UNIT, where
    assert distance(found["output"], exact["output"]) > error, "it is rounded to 8 bits"


@ROWWISE
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_so(rowwise: bool, bad: float, fp8_device: torch.device) -> None:
    x = values(32, 128, seed=1).to(fp8_device)
    x[3, 5] = bad
    y = Fp8Products(rowwise).output(x, values(256, 128, seed=2).to(fp8_device), None)
    assert not y[3].isfinite().any()
    assert rowwise == bool(y[4].isfinite().all())


@pytest.mark.parametrize("fp8", ["tensorwise", "rowwise"])
def test_a_model_in_fp8_computes_without_waiting_what_it_computes_on_the_cpu(
    fp8: str, fp8_device: torch.device
) -> None:
    logits = {}
    for device in (CPU, fp8_device):
        model = build_model(build_args(**SETTINGS, fp8=fp8), context=BuildContext(dtype=torch.bfloat16, device=device))
        tokens, _, _, position_ids = (each.to(device) for each in random_batch())
        model(tokens, position_ids).float().sum().backward()
        if device == fp8_device:
            with never_waiting(device):
                model(tokens, position_ids).float().sum().backward()
        logits[device] = model(tokens, position_ids).detach()
    # A value on the border of two 8-bit numbers may be rounded to the other one when the sum before it differed.
    assert distance(logits[fp8_device], logits[CPU]) <= 8 * UNIT


def test_a_compiled_layer_gives_the_same(fp8_device: torch.device) -> None:
    x = values(64, 128, seed=1)
    built = layer(fp8_device, Fp8Products(rowwise=True))
    plain = output_and_gradients(built, x, device=fp8_device, dtype=torch.bfloat16)
    built.zero_grad()
    compiled = torch.compile(built, fullgraph=True)
    found = compiled(x.to(fp8_device))
    assert distance(found, plain["output"]) <= UNIT


@pytest.fixture
def transformer_engine(fp8_device: torch.device) -> torch.device:
    """The GPU, where the package is installed."""
    pytest.importorskip("transformer_engine.pytorch", exc_type=ImportError)
    return fp8_device


@pytest.mark.parametrize("fp8_format", ["hybrid", "e4m3"])
def test_transformer_engine_multiplies_in_fp8_with_our_parameters(
    fp8_format: str, transformer_engine: torch.device
) -> None:
    x = values(64, 128, seed=1)
    plain, by_library = layer(transformer_engine), layer(transformer_engine)
    by_library.product = LinearProduct(lambda: by_library.weight, fp8_format=fp8_format)
    expected, found = (
        output_and_gradients(each, x, device=transformer_engine, dtype=torch.bfloat16) for each in (plain, by_library)
    )
    error, where = furthest(found, expected, measure=distance)
    assert 2 * UNIT < error < 0.1, where
    few = x[:5].to(transformer_engine)
    assert distance(by_library(few), plain(few)) <= 2 * UNIT, "few tokens are multiplied in bf16"


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("use_bias", [False, True])
def test_norms_of_transformer_engine_are_ours(name: str, use_bias: bool, transformer_engine: torch.device) -> None:
    results = []
    for each in (name, f"te_{name}"):
        norm: Norm | nn.Module = NORMS.load(each)(
            128, epsilon=1e-5, use_bias=use_bias, context=BuildContext(device=transformer_engine)
        )
        perturb(norm)
        results.append(output_and_gradients(norm, values(64, 128, seed=1).float(), device=transformer_engine))
    error, where = furthest(*reversed(results))
    assert error <= 1e-4, where
