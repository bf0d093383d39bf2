"""Dropout of hidden states and of attention weights: the same masks on whatever ranks they are drawn, and nothing kept of them."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from megatron.model.attention.explicit import weight_words
from megatron.model.dropout import HiddenDropout
from megatron.model.dropout_keys import DropoutKeys
from megatron.model.spec import BuildContext
from megatron.model.stream import Stream
from megatron.mpu.dropping import drop
from megatron.mpu.groups import SINGLE, Group
from megatron.mpu.random_bits import mixed, numbered_words
from tests.memory_census import count_saved
from tests.unit.model.builders import dropout_keys

LENGTH, ROWS, HIDDEN = 24, 2, 16
ONES = torch.ones(LENGTH, ROWS, HIDDEN, dtype=torch.float64)
KEYS = dropout_keys(rows=ROWS)


def rank(index: int, size: int) -> Group:
    return Group(index, size, tuple(range(size))) if size > 1 else SINGLE


def run(
    hidden: Tensor = ONES, keys: DropoutKeys = KEYS, *, layer: object = 0, place: str = "mlp", **context: object
) -> Tensor:
    return HiddenDropout(probability=0.5, layer=layer, context=BuildContext(**context))(hidden, keys, place)


@pytest.mark.parametrize(("context", "tensor"), [(1, 2), (2, 1), (2, 2), (3, 4)])
def test_ranks_that_share_a_sequence_drop_what_one_drops(context: int, tensor: int) -> None:
    parts = ONES.chunk(context * tensor)
    ranks = product(range(context), range(tensor))
    outputs = [
        run(part, sequence_parallel=True, context_group=rank(outer, context), tensor_group=rank(inner, tensor))
        for part, (outer, inner) in zip(parts, ranks, strict=True)
    ]
    assert torch.equal(torch.cat(outputs), run())


def test_tensor_ranks_that_hold_the_same_drop_the_same() -> None:
    assert torch.equal(run(tensor_group=rank(1, 2)), run())
    last = run(ONES[LENGTH // 2 :], tensor_group=rank(1, 2), context_group=rank(1, 2))
    assert torch.equal(last, run()[LENGTH // 2 :])


def test_rows_of_a_micro_batch_do_not_know_each_other() -> None:
    alone = [run(ONES[:, i : i + 1], DropoutKeys(KEYS.keys[i : i + 1])) for i in range(ROWS)]
    assert torch.equal(torch.cat(alone, dim=1), run())


def test_layers_places_samples_and_steps_have_masks_of_their_own() -> None:
    drawn = [run(), run(layer=1), run(place="attention"), run(keys=dropout_keys(rows=ROWS, step=1)), run().flip(1)]
    for left, right in ((left, right) for left in drawn for right in drawn if left is not right):
        assert 0.4 < (left == right).float().mean() < 0.6


@pytest.mark.parametrize(("context", "tensor"), [(1, 2), (2, 1), (2, 2)])
def test_ranks_drop_the_weights_of_their_heads(context: int, tensor: int) -> None:
    whole = weight_words(KEYS, length=5, layer=3, first_head=0, heads=8)
    share = 8 // (context * tensor)
    parts = [weight_words(KEYS, length=5, layer=3, first_head=i * share, heads=share) for i in range(context * tensor)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert whole.shape == (ROWS, 8, 5)
    assert len(whole.unique()) == whole.numel()
    assert not torch.isin(weight_words(KEYS, length=5, layer=4, first_head=0, heads=8), whole).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_is_kept_is_scaled_and_so_is_its_gradient(dtype: torch.dtype) -> None:
    values = torch.randn(8, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
    values.requires_grad_()
    rows = numbered_words(0, 8, values.device)
    result = drop(values, rows, 0.2)
    upstream = torch.arange(1.0, 257.0, dtype=dtype).view(8, 32)
    result.backward(upstream)
    is_kept = result != 0
    assert 0.7 < is_kept.float().mean() < 0.9
    torch.testing.assert_close(result, torch.where(is_kept, values / 0.8, 0))
    torch.testing.assert_close(values.grad, torch.where(is_kept, upstream / 0.8, 0))


def test_nothing_of_the_size_of_the_values_is_kept() -> None:
    values = torch.ones(64, 1024, requires_grad=True)
    rows = mixed(torch.arange(64, dtype=torch.int32))
    assert count_saved(lambda: drop(values, rows, 0.5), torch.nn.Identity()) == 4 * (64 + 1024)


def test_no_generator_is_touched() -> None:
    state = torch.get_rng_state()
    run()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("with_documents", [False, True])
@pytest.mark.parametrize("with_keys", [False, True])
def test_a_stream_comes_back_from_its_tensors(with_documents: bool, with_keys: bool) -> None:
    numbers = torch.zeros(ROWS, LENGTH, dtype=torch.int32) if with_documents else None
    optional = [tensor for tensor in (numbers, KEYS.keys if with_keys else None) if tensor is not None]
    stream = Stream.of_tensors(ONES, torch.arange(LENGTH).expand(ROWS, LENGTH), *optional)
    assert (stream.documents is not None, stream.dropout_keys is not None) == (with_documents, with_keys)
    assert stream.dropout_keys is None or stream.dropout_keys.keys is KEYS.keys
    assert stream.documents is None or stream.documents.numbers is numbers
    assert [id(tensor) for tensor in stream.tensors()[2:]] == [id(tensor) for tensor in optional]
