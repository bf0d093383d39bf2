"""Tensor parallelism over 2 and 4 ranks is the plain computation: every layer, its gradients, the loss and messages.

One world of each size serves all checks; a check runs on every rank and raises where it fails.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from megatron.fused_kernels import reference
from megatron.mpu import collectives, mappings
from megatron.mpu.broadcast import broadcast_object, broadcast_tensors
from megatron.mpu.cross_entropy import vocab_parallel_cross_entropy
from megatron.mpu.embedding import VocabParallelEmbedding
from megatron.mpu.fp8 import Fp8Products
from megatron.mpu.groups import SINGLE, Group, build_process_groups
from megatron.mpu.linear import ColumnParallelLinear, RowParallelLinear
from megatron.mpu.linear_cross_entropy import linear_cross_entropy
from megatron.mpu.linear_cross_entropy_rows import RowKernels
from megatron.mpu.shard import shard_of
from megatron.mpu.topology import Topology
from megatron.mpu.transformer_engine import LinearProduct
from tests.transformer_engine import install
from tests.worlds import run_world

CHECKS: list[Callable[[Group], None]] = []


def check(function: Callable[[Group], None]) -> Callable[[Group], None]:
    CHECKS.append(function)
    return function


def _run_checks(rank: int, size: int) -> dict[str, str | None]:
    group = build_process_groups(Topology(tensor=size)).tensor
    outcomes: dict[str, str | None] = {}
    for function in CHECKS:
        torch.manual_seed(0)
        try:
            function(group)
            outcomes[function.__name__] = None
        except Exception:
            outcomes[function.__name__] = traceback.format_exc()
        dist.barrier()
    return outcomes


@pytest.fixture(scope="module", params=[2, 4])
def world(request: pytest.FixtureRequest) -> list[dict[str, str | None]]:
    return run_world(request.param, _run_checks, request.param)


# ---- helpers, all in fp64 unless said otherwise


def _filled(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random values, the same on every rank."""
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def _fill(parameter: nn.Parameter) -> Tensor:
    """Give this rank its shard of random full values; return those as a leaf for the plain computation."""
    full = _filled(*shard_of(parameter).full_shape)
    with torch.no_grad():
        parameter.copy_(shard_of(parameter).cut(full))
    return full.requires_grad_()


def _fill_layer(layer: nn.Module) -> list[Tensor]:
    return [_fill(parameter) for parameter in layer.parameters()]


def _assert_equal(mine: Tensor, plain: Tensor) -> None:
    torch.testing.assert_close(mine, plain, rtol=1e-12, atol=1e-12)


def _assert_same_gradients(layer: nn.Module, plain: list[Tensor]) -> None:
    """Every rank's gradient is its shard of the plain gradient (a replicated parameter has the whole one on each rank)."""
    for parameter, full in zip(layer.parameters(), plain, strict=True):
        _assert_equal(parameter.grad, shard_of(parameter).cut(full.grad))


def _slice(x: Tensor, group: Group, dim: int = 0) -> Tensor:
    return x.chunk(group.size, dim)[group.rank]


def _leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


# ---- collectives that autograd knows


@check
def split_and_gather_are_inverse_in_any_dimension_and_so_are_their_gradients(group: Group) -> None:
    for dim in (0, 1, -1):
        full = _filled(4, 8, 12).transpose(0, 1)  # not contiguous
        x, upstream = _leaf(full), _filled(8, 4, 12)
        mine = mappings.scatter_to_tensor_region(x, group, dim=dim)
        _assert_equal(mine, _slice(full, group, dim))
        back = mappings.gather_from_tensor_region(mine, group, dim=dim)
        _assert_equal(back, full)
        back.backward(upstream)
        _assert_equal(x.grad, upstream)


@check
def copy_and_reduce_are_each_others_gradient(group: Group) -> None:
    scale, values, upstream = float(group.rank + 1), _filled(3, 4), _filled(3, 4)
    total = sum(range(1, group.size + 1))
    x = _leaf(values)
    y = mappings.copy_to_tensor_region(x, group)
    _assert_equal(y, values)
    y.backward(scale * upstream)
    _assert_equal(x.grad, total * upstream)
    for in_place in (False, True):
        x = _leaf(values)
        y = mappings.reduce_from_tensor_region(scale * x, group, in_place=in_place)
        _assert_equal(y, total * values)
        y.backward(upstream)
        _assert_equal(x.grad, scale * upstream)


@check
def a_sum_leaves_its_input_alone_unless_asked(group: Group) -> None:
    x = torch.full((3,), float(group.rank))
    mappings.reduce_from_tensor_region(x, group)
    assert x.tolist() == [group.rank] * 3
    mappings.reduce_from_tensor_region(x, group, in_place=True)
    assert x.tolist() == [sum(range(group.size))] * 3


@check
def a_sum_in_place_over_a_tensor_needed_for_backward_is_noticed(group: Group) -> None:
    x = _filled(3, 4).requires_grad_()
    squashed = torch.tanh(x)  # keeps its output for the gradient
    y = mappings.reduce_from_tensor_region(squashed, group, in_place=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@check
def the_sequence_is_gathered_and_scattered_with_the_right_gradients(group: Group) -> None:
    full, scale, total = _filled(8, 2, 3), float(group.rank + 1), sum(range(1, group.size + 1))
    upstream = _filled(8, 2, 3)
    x = _leaf(_slice(full, group))
    y = mappings.gather_sequence(x, group)
    y.backward(scale * upstream)
    _assert_equal(y, full)
    _assert_equal(x.grad, total * _slice(upstream, group))

    x = _leaf(full)
    y = mappings.reduce_scatter_sequence(scale * x, group)
    y.backward(_slice(upstream, group))
    _assert_equal(y, total * _slice(full, group))
    _assert_equal(x.grad, scale * upstream)

    x = _leaf(_slice(full, group))
    mappings.gather_replicated_sequence(x, group).backward(upstream)
    _assert_equal(x.grad, _slice(upstream, group))

    x = _leaf(full)
    mappings.scatter_sequence(x, group).backward(_slice(upstream, group))
    _assert_equal(x.grad, upstream)


@check
def a_sequence_that_does_not_divide_is_refused(group: Group) -> None:
    for function in (mappings.scatter_sequence, mappings.reduce_scatter_sequence):
        with pytest.raises(ValueError, match=f"cannot be divided among {group.size} ranks"):
            function(torch.zeros(group.size + 1, 2), group)


# ---- linear layers


def _column_case(group: Group, *, sequence_parallel: bool, bias: bool, parts: tuple[int, ...]) -> None:
    layer = ColumnParallelLinear(
        6,
        16,
        group=group,
        init=nn.init.zeros_,
        bias=bias,
        parts=parts,
        sequence_parallel=sequence_parallel,
        dtype=torch.float64,
    )
    plain = _fill_layer(layer)
    full_x, upstream = _leaf(_filled(8, 2, 6)), _filled(8, 2, 16)
    expected = functional.linear(full_x, *plain)
    expected.backward(upstream)

    x = _leaf(_slice(full_x, group) if sequence_parallel else full_x)
    y = layer(x)
    cut = replace(shard_of(layer.weight), full_shape=(8, 2, 16), dim=2).cut
    _assert_equal(y, cut(expected))
    y.backward(cut(upstream))
    _assert_equal(x.grad, _slice(full_x.grad, group) if sequence_parallel else full_x.grad)
    _assert_same_gradients(layer, plain)


@check
def column_parallel_linear_equals_linear(group: Group) -> None:
    for sequence_parallel in (False, True):
        for bias in (False, True):
            for parts in ((), (8, 4, 4), (8, 8)):
                _column_case(group, sequence_parallel=sequence_parallel, bias=bias, parts=parts)


@check
def column_parallel_linear_gathers_its_output_when_asked(group: Group) -> None:
    layer = ColumnParallelLinear(6, 8, group=group, init=nn.init.zeros_, gather_output=True, dtype=torch.float64)
    plain = _fill_layer(layer)
    full_x = _leaf(_filled(3, 6))
    x = _leaf(full_x)
    expected, y = functional.linear(full_x, *plain), layer(x)
    _assert_equal(y, expected)
    for output in (expected, y):
        (output**2).sum().backward()
    _assert_equal(x.grad, full_x.grad)
    _assert_same_gradients(layer, plain)


@check
def column_parallel_linear_skips_gradients_nobody_needs(group: Group) -> None:
    for sequence_parallel in (False, True):
        layer = ColumnParallelLinear(6, 8, group=group, init=nn.init.zeros_, sequence_parallel=sequence_parallel)
        _fill_layer(layer)
        layer.weight.requires_grad_(False)
        x = torch.randn(4, 6)
        layer(x).sum().backward()
        assert layer.weight.grad is None
        assert layer.bias.grad is not None
        x.requires_grad_()
        layer(x).sum().backward()
        assert x.grad is not None


@check
def row_parallel_linear_equals_linear(group: Group) -> None:
    for sequence_parallel in (False, True):
        for bias in (False, True):
            layer = RowParallelLinear(
                16,
                6,
                group=group,
                init=nn.init.zeros_,
                bias=bias,
                sequence_parallel=sequence_parallel,
                dtype=torch.float64,
            )
            plain = _fill_layer(layer)
            full_x, upstream = _leaf(_filled(8, 2, 16)), _filled(8, 2, 6)
            expected = functional.linear(full_x, *plain)
            expected.backward(upstream)

            x = _leaf(_slice(full_x, group, -1))
            y = layer(x)
            _assert_equal(y, _slice(expected, group) if sequence_parallel else expected)
            y.backward(_slice(upstream, group) if sequence_parallel else upstream)
            _assert_equal(x.grad, _slice(full_x.grad, group, -1))
            _assert_same_gradients(layer, plain)


@check
def fp8_products_are_those_of_one_process_but_for_the_smallest_values(group: Group) -> None:
    """Parts of a tensor have scales of their own: values more than 2^13 below the largest may be rounded otherwise, by 2^-17 of it."""
    for kind, rowwise, sequence_parallel in product(
        (ColumnParallelLinear, RowParallelLinear), (False, True), (False, True)
    ):
        options = {"init": nn.init.zeros_, "dtype": torch.float64, "sequence_parallel": sequence_parallel}
        layer, one = kind(128, 64, group=group, **options), kind(128, 64, group=SINGLE, **options)
        layer.products = one.products = Fp8Products(rowwise)
        with torch.no_grad():
            for mine, whole in zip(layer.parameters(), one.parameters(), strict=True):
                whole.copy_(_filled(*whole.shape))
                mine.copy_(shard_of(mine).cut(whole))
        full_x, upstream = _leaf(_filled(16, 2, 128)), _filled(16, 2, 64)
        expected = one(full_x)
        expected.backward(upstream)

        is_column = kind is ColumnParallelLinear
        x_dim = None if is_column and not sequence_parallel else 0 if is_column else -1
        y_dim = -1 if is_column else 0 if sequence_parallel else None
        x = _leaf(full_x if x_dim is None else _slice(full_x, group, x_dim))
        y = layer(x)
        y.backward(upstream if y_dim is None else _slice(upstream, group, y_dim))
        found = [(y, expected, y_dim), (x.grad, full_x.grad, x_dim)]
        found += [
            (mine.grad, whole.grad, shard_of(mine).dim)
            for mine, whole in zip(layer.parameters(), one.parameters(), strict=True)
        ]
        for mine, whole, dim in found:
            same = whole if dim is None else _slice(whole, group, dim)
            assert (mine - same).abs().max() < 2e-4 * whole.abs().max(), (kind, rowwise, sequence_parallel, mine.shape)
        exact = functional.linear(full_x, one.weight, one.bias)
        assert (expected - exact).abs().max() > 5e-3 * exact.abs().max(), "8 bits are far less exact than that"


@check
def a_library_multiplies_between_the_same_exchanges(group: Group) -> None:
    with pytest.MonkeyPatch.context() as patch:
        notes = install(patch)
        for kind, sequence_parallel in product((ColumnParallelLinear, RowParallelLinear), (False, True)):
            layers = [
                kind(64, 64, group=group, init=nn.init.zeros_, dtype=torch.float64, sequence_parallel=sequence_parallel)
                for _ in range(2)
            ]
            ours, by_library = layers
            by_library.product = LinearProduct(lambda layer=by_library: layer.weight, fp8_format="hybrid")
            width, length = ours.weight.shape[1], 16
            values = _filled(
                length // group.size if sequence_parallel and kind is ColumnParallelLinear else length, width
            )
            results = []
            for layer in layers:
                torch.manual_seed(1)
                _fill_layer(layer)
                x = _leaf(values)
                y = layer(x)
                y.backward(_filled(*y.shape))
                results.append((y, x.grad, layer.weight.grad, layer.bias.grad))
            for mine, plain in zip(*reversed(results), strict=True):
                _assert_equal(mine, plain)
        assert len(notes.linear) == 4


@check
def the_row_parallel_bias_is_added_once_and_not_on_every_rank(group: Group) -> None:
    layer = RowParallelLinear(8, 3, group=group, init=nn.init.zeros_, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
    y = layer(torch.zeros(2, 8 // group.size, dtype=torch.float64))
    _assert_equal(y, layer.bias.expand(2, 3))
    assert not torch.allclose(y, group.size * layer.bias.expand(2, 3))


@check
def two_partial_products_may_be_reduced_once(group: Group) -> None:
    for sequence_parallel in (False, True):
        layers = [
            RowParallelLinear(
                width, 6, group=group, init=nn.init.zeros_, sequence_parallel=sequence_parallel, dtype=torch.float64
            )
            for width in (8, 16)
        ]
        plain = [_fill_layer(layer) for layer in layers]
        inputs, upstream = [_leaf(_filled(4, 2, 8)), _leaf(_filled(4, 2, 16))], _filled(4, 2, 6)
        expected = sum(functional.linear(x, *weights) for x, weights in zip(inputs, plain, strict=True))
        expected.backward(upstream)

        mine = [_leaf(_slice(x, group, -1)) for x in inputs]
        together = layers[0].partial(mine[0]) + layers[1].partial(mine[1])
        y = layers[1].add_bias(layers[0].finish(together))
        _assert_equal(y, _slice(expected, group) if sequence_parallel else expected)
        y.backward(_slice(upstream, group) if sequence_parallel else upstream)
        for layer, weights, x, full_x in zip(layers, plain, mine, inputs, strict=True):
            _assert_same_gradients(layer, weights)
            _assert_equal(x.grad, _slice(full_x.grad, group, -1))


@check
def a_checkpointed_pair_of_layers_equals_a_plain_mlp(group: Group) -> None:
    for sequence_parallel in (False, True):
        common = {
            "group": group,
            "init": nn.init.zeros_,
            "sequence_parallel": sequence_parallel,
            "dtype": torch.float64,
        }
        up, down = ColumnParallelLinear(6, 16, **common), RowParallelLinear(16, 6, **common)
        plain_up, plain_down = _fill_layer(up), _fill_layer(down)
        full_x = _leaf(_filled(8, 2, 6))
        expected = functional.linear(torch.tanh(functional.linear(full_x, *plain_up)), *plain_down)
        (expected**2).sum().backward()

        x = _leaf(_slice(full_x, group) if sequence_parallel else full_x)
        y = checkpoint(lambda x, up=up, down=down: down(torch.tanh(up(x))), x, use_reentrant=False)
        (y**2).sum().backward()
        _assert_equal(x.grad, _slice(full_x.grad, group) if sequence_parallel else full_x.grad)
        _assert_same_gradients(up, plain_up)
        _assert_same_gradients(down, plain_down)


# ---- vocabulary


@check
def vocab_parallel_embedding_equals_embedding(group: Group) -> None:
    layer = VocabParallelEmbedding(16, 5, group=group, init=nn.init.zeros_, valid_rows=13, dtype=torch.float64)
    (plain,) = _fill_layer(layer)
    tokens, upstream = torch.tensor([[0, 15, 7, 8], [3, 3, 4, 12]]), _filled(2, 4, 5)
    expected = functional.embedding(tokens, plain)
    expected.backward(upstream)
    y = layer(tokens)
    _assert_equal(y, expected)
    y.backward(upstream)
    _assert_same_gradients(layer, [plain])

    layer.zero_grad()
    split = mappings.reduce_scatter_sequence(layer.partial(tokens).transpose(0, 1), group)
    _assert_equal(split, _slice(expected.transpose(0, 1), group))
    split.backward(_slice(upstream.transpose(0, 1), group))
    _assert_same_gradients(layer, [plain])


@check
def a_token_outside_the_vocabulary_is_an_error_on_every_rank(group: Group) -> None:
    layer = VocabParallelEmbedding(8, 2, group=group, init=nn.init.zeros_)
    for token in (-1, 8):
        with pytest.raises(IndexError):
            layer.partial(torch.tensor([[1, token]]))


def _cross_entropy_case(group: Group, vocab_size: int, padded: int, dtype: torch.dtype, tolerance: float) -> None:
    full = (3 * _filled(3, 4, padded) + 50).to(dtype)
    full[..., vocab_size:] = 1e4  # whatever padding holds must not matter
    labels = torch.randint(0, vocab_size, (3, 4))
    labels[0, 1], labels[1, 0], labels[2, 3] = -100, vocab_size - 1, 0
    precise = torch.promote_types(dtype, torch.float32)
    plain = full[..., :vocab_size].to(precise).requires_grad_()
    expected = functional.cross_entropy(plain.flatten(0, -2), labels.flatten(), reduction="none").view(3, 4)
    upstream = _filled(3, 4, dtype=precise)
    expected.backward(upstream)

    logits = _leaf(_slice(full, group, -1))
    losses = vocab_parallel_cross_entropy(logits, labels, group, vocab_size=vocab_size)
    losses.backward(upstream)
    assert losses.dtype == precise
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(losses, expected, rtol=tolerance, atol=tolerance)
    gradient = functional.pad(plain.grad, (0, padded - vocab_size)).to(dtype)
    rounding = torch.finfo(dtype).eps if dtype != torch.float64 else tolerance
    torch.testing.assert_close(logits.grad, _slice(gradient, group, -1), rtol=rounding, atol=10 * tolerance)
    assert not logits.grad[0, 1].any()


@check
def vocab_parallel_cross_entropy_equals_cross_entropy_whatever_the_padding(group: Group) -> None:
    for vocab_size, padded in ((16, 16), (13, 16), (5, 16), (13, 32)):  # with 5 of 16 some ranks hold padding only
        _cross_entropy_case(group, vocab_size, padded, torch.float64, 1e-12)
        _cross_entropy_case(group, vocab_size, padded, torch.float32, 1e-5)
        _cross_entropy_case(group, vocab_size, padded, torch.bfloat16, 1e-5)


@check
def the_loss_of_large_logits_is_finite_and_of_an_impossible_label_infinite(group: Group) -> None:
    logits = _slice(torch.tensor([[1e30, -1e30, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]]), group, -1)
    losses = vocab_parallel_cross_entropy(logits, torch.tensor([0, 3]), group, vocab_size=3)
    assert losses[0] == 0
    assert losses[1] == torch.inf
    with pytest.raises(ValueError, match="only 4 columns"):
        vocab_parallel_cross_entropy(logits, torch.tensor([0, 1]), group, vocab_size=5)


@check
def the_loss_with_its_projection_is_that_of_logits_however_rows_and_vocabulary_are_cut(group: Group) -> None:
    weight, bias, hidden = _filled(16, 6), _filled(16), _filled(8, 3, 6)
    labels, weights = torch.randint(0, 13, (8, 3)), _filled(8, 3)
    labels[0, 1], labels[3, 0], labels[7, 2] = -100, 12, 0
    kernels = (None, RowKernels(reference.softmax_statistics, reference.softmax_gradient_))
    for vocab_size, in_sequence, rows, own_kernels in product((13, 5), (False, True), (5, 24), kernels):
        whole = [_leaf(each) for each in (hidden, weight, bias)]
        known = labels.clamp(max=vocab_size - 1)
        logits = functional.linear(*whole)[..., :vocab_size]
        losses = functional.cross_entropy(logits.flatten(0, 1), known.flatten(), reduction="none")
        expected = (losses * weights.flatten()).sum()
        (expected * 0.3).backward()
        own = [
            _leaf(_slice(hidden, group, 0) if in_sequence else hidden),
            *(_leaf(_slice(each, group, 0)) for each in (weight, bias)),
        ]
        with patch("megatron.mpu.linear_cross_entropy.chunk_rows", lambda count, *, row_bytes, rows=rows: rows):
            found = linear_cross_entropy(
                *own,
                known,
                weights,
                group,
                vocab_size=vocab_size,
                sequence_parallel=in_sequence,
                kernels=own_kernels,
            )
        (found * 0.3).backward()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        gradients = [_slice(whole[0].grad, group, 0) if in_sequence else whole[0].grad]
        gradients += [_slice(each.grad, group, 0) for each in whole[1:]]
        for mine, theirs in zip(own, gradients, strict=True):
            torch.testing.assert_close(mine.grad, theirs, rtol=1e-12, atol=1e-12)


# ---- messages


@check
def broadcast_gives_every_rank_the_tensors_of_the_first(group: Group) -> None:
    tensors = {
        "tokens": torch.arange(6).view(2, 3),
        "mask": torch.tensor([True, False]),
        "half": torch.arange(6, dtype=torch.bfloat16).view(2, 3).t(),  # not contiguous
        "empty": torch.empty(0, 4),
        "scalar": torch.tensor(2.5),
    }
    received = broadcast_tensors(tensors if group.rank == 0 else None, group, "cpu")
    assert list(received) == list(tensors)
    for name, tensor in tensors.items():
        assert received[name].dtype == tensor.dtype
        assert torch.equal(received[name], tensor), name


@check
def objects_and_numbers_travel(group: Group) -> None:
    assert broadcast_object({"from": group.rank}, group) == {"from": 0}
    assert collectives.all_gather_objects(group.rank, group) == list(range(group.size))
    assert collectives.all_reduce_sum(0.5 + group.rank, group) == sum(0.5 + rank for rank in range(group.size))
    assert collectives.all_reduce_sum(torch.tensor([1, 2]), group).tolist() == [group.size, 2 * group.size]
    collectives.barrier(group)


@check
def every_axis_of_a_grid_communicates_among_its_own_ranks(group: Group) -> None:
    half = group.size // 2
    for topology in (Topology(pipe=2, data=half), Topology(data=2, tensor=half), Topology(pipe=half, tensor=2)):
        groups = build_process_groups(topology)
        assert groups.rank == dist.get_rank() == groups.world.rank
        for axis in ("tensor", "data", "pipe", "model", "world"):
            mine: Group = getattr(groups, axis)
            assert mine.ranks[mine.rank] == groups.rank
            assert (mine.handle is None) == (mine.size == 1)
            assert collectives.all_gather_objects(groups.rank, mine) == list(mine.ranks)
            message = broadcast_tensors({"rank": torch.tensor(groups.rank)} if mine.rank == 0 else None, mine, "cpu")
            assert message["rank"] == mine.ranks[0]


@check
def no_rank_goes_on_before_the_groups_of_a_slow_one_stand(group: Group) -> None:
    connected = 0.0
    connect = dist.new_group

    def connect_slowly(ranks: list[int]) -> dist.ProcessGroup:
        nonlocal connected
        handle = connect(ranks)
        time.sleep(0.2)
        connected = time.monotonic()
        return handle

    if group.rank == 0:
        dist.new_group = connect_slowly
    try:
        build_process_groups(Topology(data=group.size))
    finally:
        dist.new_group = connect
    gone_on = time.monotonic()
    assert gone_on >= max(collectives.all_gather_objects(connected, group))


@pytest.mark.parametrize("name", [function.__name__ for function in CHECKS])
def test_on_every_rank(world: list[dict[str, str | None]], name: str) -> None:
    failures = [f"rank {rank}:\n{outcomes[name]}" for rank, outcomes in enumerate(world) if outcomes[name]]
    assert not failures, "\n".join(failures)
