"""The loss that is computed with its projection: losses and gradients of the plain path, however the rows are cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from megatron.fused_kernels import reference
from megatron.mpu import row_chunks
from megatron.mpu.cross_entropy import vocab_parallel_cross_entropy
from megatron.mpu.groups import SINGLE
from megatron.mpu.linear_cross_entropy import linear_cross_entropy
from megatron.mpu.linear_cross_entropy_rows import RowKernels
from tools.benchmark.peak import Peak

KERNELS = RowKernels(reference.softmax_statistics, reference.softmax_gradient_)
LENGTH, BATCH, HIDDEN, VOCABULARY, PADDED = 23, 3, 16, 90, 96
ROWS = LENGTH * BATCH


@dataclass(frozen=True)
class Case:
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    mask: Tensor

    def leaves(self) -> list[Tensor]:
        return [each.clone().requires_grad_() for each in (self.hidden, self.weight, self.bias) if each is not None]

    def to(self, dtype: torch.dtype) -> Case:
        bias = None if self.bias is None else self.bias.to(dtype)
        return Case(self.hidden.to(dtype), self.weight.to(dtype), bias, self.labels, self.mask)


def make_case(dtype: torch.dtype, *, bias: bool = False) -> Case:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    labels = torch.randint(VOCABULARY, (LENGTH, BATCH), generator=generator)
    labels[0, 0], labels[-1, -1], labels[1, 0] = -100, -1, VOCABULARY - 1
    mask = (torch.rand(LENGTH, BATCH, generator=generator) < 0.8).float()
    mask[3, 1] = 0.5
    return Case(normal(LENGTH, BATCH, HIDDEN), normal(PADDED, HIDDEN), normal(PADDED) if bias else None, labels, mask)


def plain(case: Case, *, factor: float = 1 / 77) -> list[Tensor]:
    """Loss and gradients by way of logits."""
    leaves = case.leaves()
    losses = vocab_parallel_cross_entropy(functional.linear(*leaves), case.labels, SINGLE, vocab_size=VOCABULARY)
    return _differentiated((losses * case.mask).sum(), leaves, factor)


def fused(case: Case, *, factor: float = 1 / 77, kernels: RowKernels | None = None) -> list[Tensor]:
    leaves = case.leaves()
    hidden, weight, *bias = leaves
    loss = linear_cross_entropy(
        hidden,
        weight,
        bias[0] if bias else None,
        case.labels,
        case.mask,
        SINGLE,
        vocab_size=VOCABULARY,
        kernels=kernels,
    )
    return _differentiated(loss, leaves, factor)


def _differentiated(loss: Tensor, leaves: list[Tensor], factor: float) -> list[Tensor]:
    (loss * factor).backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def distance(values: Tensor, reference: Tensor) -> float:
    return float((values.double() - reference).norm() / reference.norm())


@pytest.fixture(params=["one chunk", "2 chunks", "7 chunks, blocks of 2 rows"])
def cuts(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many chunks the rows are cut into: 35 and 34 of them, or six times 10 and 9."""
    chunks = {"one chunk": 1, "2 chunks": 2, "7 chunks, blocks of 2 rows": 7}[request.param]
    with (
        patch.object(row_chunks, "chunk_rows", lambda rows, *, row_bytes: -(-rows // chunks)),
        patch("megatron.mpu.linear_cross_entropy.chunk_rows", lambda rows, *, row_bytes: -(-rows // chunks)),
        patch(
            "megatron.mpu.linear_cross_entropy_rows.block_rows",
            lambda rows, *, row_bytes, device: 2 if chunks == 7 else rows,
        ),
    ):
        yield chunks


@pytest.mark.parametrize("kernels", [None, KERNELS], ids=["blocks", "kernels"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_loss_and_gradients_are_those_of_the_logits(
    dtype: torch.dtype, tolerance: float, bias: bool, kernels: RowKernels | None, cuts: int
) -> None:
    case = make_case(dtype, bias=bias)
    expected, found = plain(case), fused(case, kernels=kernels)
    assert len(found) == len(expected) == (4 if bias else 3)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert distance(mine, theirs.double()) < tolerance


@pytest.mark.parametrize("bias", [False, True])
def test_in_bf16_gradients_are_as_near_to_exact_ones_as_those_of_the_logits(bias: bool, cuts: int) -> None:
    """Up to a factor: three chunks and the scaling by the loss's gradient are up to three roundings more of the matrix's gradient."""
    case = make_case(torch.bfloat16, bias=bias)
    exact = plain(case.to(torch.float64))
    for mine, theirs, exactly in zip(fused(case), plain(case), exact, strict=True):
        assert mine.dtype == theirs.dtype
        assert distance(mine, exactly) < max(2 * distance(theirs, exactly), 1e-5)


def test_over_many_chunks_gradients_in_bf16_lose_nothing() -> None:
    """512 summands of -3/4 or 1/4: a sum in bf16 comes to a halt at a quarter of them."""
    rows, columns = 512, 4
    weight = torch.zeros(columns, 1, dtype=torch.bfloat16, requires_grad=True)
    bias = torch.zeros(columns, dtype=torch.bfloat16, requires_grad=True)
    hidden, labels = torch.ones(rows, 1, 1, dtype=torch.bfloat16), torch.zeros(rows, 1, dtype=torch.int64)
    with patch("megatron.mpu.linear_cross_entropy.chunk_rows", lambda rows, *, row_bytes: 1):
        linear_cross_entropy(hidden, weight, bias, labels, torch.ones(rows, 1), SINGLE).backward()
    for gradient in (weight.grad, bias.grad):
        assert gradient is not None
        assert gradient.flatten().tolist() == [-384, 128, 128, 128]


def test_padding_and_ignored_labels_have_no_gradient(cuts: int) -> None:
    _, hidden, weight = fused(make_case(torch.float32))
    assert not weight[VOCABULARY:].any()
    assert not hidden[0, 0].any()
    assert not hidden[-1, -1].any()


def test_a_mask_of_zeros_gives_zero(cuts: int) -> None:
    case = make_case(torch.float32)
    assert not any(each.any() for each in fused(Case(case.hidden, case.weight, None, case.labels, 0 * case.mask)))


@pytest.mark.parametrize("kernels", [None, KERNELS], ids=["blocks", "kernels"])
def test_a_label_beyond_the_vocabulary_has_an_infinite_loss_and_the_gradients_of_the_logits(
    kernels: RowKernels | None, cuts: int
) -> None:
    case = make_case(torch.float64)
    case.labels[4, 2], case.mask[4, 2] = VOCABULARY, 1.0
    expected, found = plain(case), fused(case, kernels=kernels)
    assert found[0] == expected[0] == torch.inf
    assert all(distance(mine, theirs) < 1e-13 for mine, theirs in zip(found[1:], expected[1:], strict=True))


def test_without_gradients_the_loss_is_the_same(cuts: int) -> None:
    case = make_case(torch.float32)
    with torch.no_grad():
        loss = linear_cross_entropy(*case.leaves(), None, case.labels, case.mask, SINGLE, vocab_size=VOCABULARY)
    assert not loss.requires_grad
    assert loss == fused(case)[0]


def test_what_needs_no_gradient_gets_none() -> None:
    case = make_case(torch.float64)
    hidden = case.hidden.clone().requires_grad_()
    linear_cross_entropy(hidden, case.weight, None, case.labels, case.mask, SINGLE, vocab_size=VOCABULARY).backward()
    expected = plain(case, factor=1)[1]
    assert hidden.grad is not None
    assert distance(hidden.grad, expected) < 1e-13


def test_its_backward_pass_runs_once() -> None:
    case = make_case(torch.float32)
    loss = linear_cross_entropy(*case.leaves(), None, case.labels, case.mask, SINGLE)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="runs once"):
        loss.backward()


def test_a_vocabulary_that_is_larger_than_the_matrix_is_refused() -> None:
    case = make_case(torch.float32)
    with pytest.raises(ValueError, match="only 96 rows"):
        linear_cross_entropy(*case.leaves(), None, case.labels, case.mask, SINGLE, vocab_size=97)


def test_it_needs_a_fraction_of_the_memory_of_logits() -> None:
    """In chunks of a quarter of the rows: of logits and their fp32 probabilities and gradients, less than a third."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2048, 1, 16, generator=generator).bfloat16()
    labels = torch.randint(4096, (2048, 1), generator=generator)
    case = Case(hidden, torch.randn(4096, 16).bfloat16(), None, labels, torch.ones(2048, 1))

    def peak_of(losses: str) -> int:
        leaves, peak = case.leaves(), Peak()
        with patch.object(row_chunks, "CHUNK_BYTES", 512 * 4096 * 2), peak:
            if losses == "fused":
                linear_cross_entropy(*leaves, None, case.labels, case.mask, SINGLE).backward()
            else:
                logits = functional.linear(*leaves)
                (vocab_parallel_cross_entropy(logits, labels, SINGLE) * case.mask).sum().backward()
        return peak.bytes

    logits = 2048 * 4096 * 2
    assert peak_of("plain") > 4 * logits
    assert peak_of("fused") < logits
