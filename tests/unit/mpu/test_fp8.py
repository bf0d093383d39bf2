"""Products in 8-bit floating point are those of operands that are rounded once, whatever their scale, and infinities and NaN stay seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from megatron.errors import NeoXError
from megatron.mpu.fp8 import E4M3, E5M2, Fp8Products, Quantised, by_tensor_cores, check_device, multiply, quantise
from megatron.mpu.groups import SINGLE
from megatron.mpu.linear import ColumnParallelLinear, RowParallelLinear

TYPES = {E4M3: (3, -6, 448.0), E5M2: (2, -14, 57344.0)}
"""Bits of the mantissa, exponent of the smallest normal number, largest number (Micikevicius et al. 2022, table 1)."""

ROWWISE = pytest.mark.parametrize("rowwise", [False, True], ids=["tensorwise", "rowwise"])
KINDS = pytest.mark.parametrize("kind", [ColumnParallelLinear, RowParallelLinear])


def matrix(rows: int, columns: int, *, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows and columns of different sizes, one value much larger than all others."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    values *= torch.logspace(-2, 2, rows)[:, None] * torch.logspace(1, -1, columns)
    values[rows // 2, columns // 3] *= 50
    return values.to(dtype)


def rounded(x: Tensor, dtype: torch.dtype, *, rowwise: bool) -> Tensor:
    """The values of fp64 [m, k] that the type can hold, scaled by the power of two for which the largest one just fits: in fp64."""
    bits, smallest, largest = TYPES[dtype]
    amax = x.abs().amax(dim=1, keepdim=True) if rowwise else x.abs().amax().expand(len(x), 1)
    scale = torch.tensor([[2.0 ** math.floor(math.log2(largest / row.item()))] for row in amax], dtype=torch.float64)
    scaled = x * scale
    exponent = torch.frexp(scaled)[1] - 1
    step = 2.0 ** (exponent.clamp(min=smallest) - bits).double()
    return (scaled / step).round() * step / scale


def values_of(quantised: Quantised) -> Tensor:
    return quantised.values.double() * quantised.scale.double()


@ROWWISE
@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_quantising_rounds_once_to_what_the_type_holds(rowwise: bool, dtype: torch.dtype, given: torch.dtype) -> None:
    x = matrix(32, 48, seed=1, dtype=given)
    for operand in (x, x.T):  # neither order of memory matters
        found = quantise(operand, dtype, rowwise=rowwise)
        assert found.values.dtype == dtype
        assert found.values.is_contiguous()
        torch.testing.assert_close(values_of(found), rounded(operand.double(), dtype, rowwise=rowwise), rtol=0, atol=0)


@ROWWISE
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_the_three_products_are_those_of_the_rounded_operands(rowwise: bool, given: torch.dtype) -> None:
    """To rounding: sums in fp32, and what is given back in bf16 has 8 bits."""
    tolerance = 2**-8 if given == torch.bfloat16 else 2**-20
    x, weight, gradient = (
        matrix(*sizes, seed=i, dtype=given) for i, sizes in enumerate([(40, 64), (48, 64), (40, 48)])
    )
    products = Fp8Products(rowwise)

    def round_(operand: Tensor, dtype: torch.dtype = E4M3) -> Tensor:
        return rounded(operand.double(), dtype, rowwise=rowwise)

    expected = {
        "output": round_(x) @ round_(weight).T,
        "input gradient": round_(gradient, E5M2) @ round_(weight.T).T,
        "weight gradient": round_(gradient.T, E5M2) @ round_(x.T).T,
    }
    found = {
        "output": products.output(x.view(8, 5, 64), weight, None).flatten(0, 1),
        "input gradient": products.input_gradient(gradient.view(8, 5, 48), weight).flatten(0, 1),
        "weight gradient": products.weight_gradient(gradient, x),
    }
    for name, value in found.items():
        assert value.dtype == given
        limit = tolerance * expected[name].abs().amax()
        assert (value.double() - expected[name]).abs().amax() <= limit, name


@KINDS
@ROWWISE
def test_a_layer_has_the_products_as_output_and_gradients(
    kind: type[ColumnParallelLinear] | type[RowParallelLinear], rowwise: bool
) -> None:
    layer = kind(64, 48, group=SINGLE, init=torch.nn.init.zeros_)
    layer.products = products = Fp8Products(rowwise)
    with torch.no_grad():
        layer.weight.copy_(matrix(48, 64, seed=1))
        layer.bias.copy_(torch.randn(48, generator=torch.Generator().manual_seed(0)))
    x = matrix(21, 64, seed=2).view(3, 7, 64).requires_grad_()
    upstream = matrix(21, 48, seed=3).view(3, 7, 48)
    y = layer(x)
    y.backward(upstream)
    torch.testing.assert_close(y, products.output(x, layer.weight, layer.bias).detach(), rtol=0, atol=0)
    torch.testing.assert_close(x.grad, products.input_gradient(upstream, layer.weight), rtol=0, atol=0)
    rows = upstream.flatten(0, 1), x.detach().flatten(0, 1)
    torch.testing.assert_close(layer.weight.grad, products.weight_gradient(*rows), rtol=0, atol=0)
    torch.testing.assert_close(layer.bias.grad, upstream.sum(dim=(0, 1)))
    exact = upstream.flatten(0, 1).T @ x.flatten(0, 1)
    assert 0.005 < (layer.weight.grad - exact).norm() / exact.norm() < 0.1, (
        "rounded to 8 bits, and no more wrong than that"
    )


def test_the_gradient_of_the_weight_may_stay_as_exact_as_it_is() -> None:
    gradient, x = matrix(40, 48, seed=1), matrix(40, 64, seed=2)
    exact = gradient.T @ x
    torch.testing.assert_close(Fp8Products(True, weight_gradient_too=False).weight_gradient(gradient, x), exact)
    assert not torch.allclose(Fp8Products(True).weight_gradient(gradient, x), exact, rtol=1e-3)


def test_gradients_in_e4m3_are_more_exact() -> None:
    gradient, weight = torch.randn(64, 48), torch.randn(48, 64)

    def error(gradient_type: torch.dtype) -> float:
        found = Fp8Products(True, gradient_type).input_gradient(gradient, weight)
        return ((found - gradient @ weight).norm() / (gradient @ weight).norm()).item()

    assert error(E4M3) < 0.8 * error(E5M2)


@ROWWISE
def test_a_part_of_a_tensor_is_rounded_as_in_the_whole_but_for_its_smallest_values(rowwise: bool) -> None:
    whole = matrix(64, 64, seed=1)
    together = values_of(quantise(whole, E4M3, rowwise=rowwise))
    apart = torch.cat([values_of(quantise(part, E4M3, rowwise=rowwise)) for part in whole.chunk(4, dim=1)], dim=1)
    differing = (together != apart).nonzero(as_tuple=True)
    largest = (whole.abs().amax(dim=1, keepdim=True) if rowwise else whole.abs().amax()).expand_as(whole)
    assert len(differing[0]), "the parts have other scales"
    assert (whole.abs() < largest * 2**-13)[differing].all()
    assert ((together - apart).abs() <= largest * 2**-17).all()


@ROWWISE
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_computed_of_infinities_and_nan_is_never_finite(rowwise: bool, bad: float, dtype: torch.dtype) -> None:
    x, weight, gradient = (torch.randn(*sizes).to(dtype) for sizes in [(32, 64), (48, 64), (32, 48)])
    products = Fp8Products(rowwise)
    for operand in (x, weight, gradient):
        kept = operand[5, 7].clone()
        operand[5, 7] = bad
        results = {
            (x, weight): products.output(x, weight, None),
            (gradient, weight): products.input_gradient(gradient, weight),
            (gradient, x): products.weight_gradient(gradient, x),
        }
        for operands, result in results.items():
            touched = any(operand is each for each in operands)
            exact = {(x, weight): (5, slice(None))}
            assert bool(result.isfinite().all()) != touched
            if not rowwise:
                assert bool(result.isfinite().any()) != touched
            if rowwise and touched and operand is x and operands in exact:
                assert not result[exact[operands]].isfinite().any()
        operand[5, 7] = kept


@ROWWISE
@pytest.mark.parametrize("size", [0.0, 1e-44, 1e-38, 1e-30, 1e30, 3e38])
def test_operands_of_any_size_are_multiplied(rowwise: bool, size: float) -> None:
    x, weight = torch.full((16, 64), size), torch.full((32, 64), min(1.0, 1e30 / max(size, 1.0)))
    y = Fp8Products(rowwise).output(x, weight, None)
    expected = x.double() @ weight.double().T
    # Below 2^-100 / 448 or so all is zero, as it is beside anything of the size of activations.
    torch.testing.assert_close(y.double(), expected, rtol=2**-4, atol=1e-29)


@ROWWISE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 16, 21])
def test_torchs_scaled_product_gives_the_same(rowwise: bool, dtype: torch.dtype, rows: int) -> None:
    a = quantise(matrix(rows, 64, seed=1, dtype=dtype), E5M2, rowwise=rowwise)
    b = quantise(matrix(48, 64, seed=2, dtype=dtype), E4M3, rowwise=rowwise)
    bias = torch.randn(48).to(dtype)
    try:
        found = by_tensor_cores(a, b, dtype=dtype, bias=bias, fast_sums=False)
    except (RuntimeError, NotImplementedError) as problem:
        pytest.skip(f"this release of torch has it on GPUs only: {problem}")
    limit = 2**-7 if dtype == torch.bfloat16 else 2**-20
    expected = multiply(a, b, dtype=dtype, bias=bias)
    assert (found - expected).abs().amax() <= limit * expected.abs().amax()


def test_a_compiler_sees_through_it() -> None:
    layer = ColumnParallelLinear(32, 48, group=SINGLE, init=torch.nn.init.zeros_)
    layer.products = Fp8Products(True)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    x = torch.randn(16, 32)
    results = []
    for function in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        y = function(x)
        y.square().sum().backward()
        results.append((y.detach(), layer.weight.grad.clone()))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("capability", "hip", "problem"),
    [
        ((9, 0), None, None),
        ((8, 9), None, None),
        ((8, 0), None, "compute capability 8.9 or more (Ada, Hopper, Blackwell), and NVIDIA X has 8.0: set it"),
        ((9, 4), "6.4", "not supported on AMD GPUs"),
    ],
)
def test_a_gpu_without_such_products_is_told(
    capability: tuple[int, int], hip: str | None, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X")
    monkeypatch.setattr(torch.version, "hip", hip)
    check_device("cpu")
    if problem is None:
        check_device("cuda:0")
        return
    with pytest.raises(NeoXError) as told:
        check_device("cuda:0")
    assert problem in str(told.value)
