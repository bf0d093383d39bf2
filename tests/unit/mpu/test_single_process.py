"""A group of one: every layer is the plain one, every collective gives back what it was given, and nothing needs torch.distributed."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from megatron.mpu import collectives, mappings
from megatron.mpu.broadcast import broadcast_object, broadcast_tensors
from megatron.mpu.cross_entropy import vocab_parallel_cross_entropy
from megatron.mpu.embedding import VocabParallelEmbedding
from megatron.mpu.groups import SINGLE, build_process_groups, single_process_groups
from megatron.mpu.linear import ColumnParallelLinear, RowParallelLinear
from megatron.mpu.shard import initialize_parameters, name_parameters
from megatron.mpu.topology import Topology


def _normal(tensor, generator):
    tensor.normal_(generator=generator)


def _ready(layer):
    name_parameters(layer, "0")
    initialize_parameters(layer, seed=3)
    return layer


MAPPINGS = [
    mappings.copy_to_tensor_region,
    mappings.reduce_from_tensor_region,
    mappings.gather_from_tensor_region,
    mappings.scatter_to_tensor_region,
    mappings.gather_sequence,
    mappings.reduce_scatter_sequence,
    mappings.scatter_sequence,
    mappings.gather_replicated_sequence,
]


def test_no_torch_distributed_is_needed():
    assert not dist.is_initialized()
    assert build_process_groups(Topology()) == single_process_groups()


@pytest.mark.parametrize("function", MAPPINGS)
def test_a_mapping_returns_its_argument_itself(function):
    x = torch.ones(3, 2, requires_grad=True)
    assert function(x, SINGLE) is x


def test_a_sum_in_place_returns_its_argument_itself():
    x = torch.ones(2)
    assert mappings.reduce_from_tensor_region(x, SINGLE, in_place=True) is x


def test_messages_and_sums_are_what_was_given():
    x = torch.arange(3)
    assert collectives.all_reduce_sum(x, SINGLE) is x
    assert collectives.all_reduce_sum(2.5, SINGLE) == 2.5
    assert collectives.all_gather(x, SINGLE, dim=0) is x
    assert collectives.own_slice(x, SINGLE, dim=0) is x
    assert collectives.all_gather_objects("a", SINGLE) == ["a"]
    collectives.barrier(SINGLE)
    assert broadcast_object({"a": 1}, SINGLE) == {"a": 1}
    assert broadcast_tensors({"x": x}, SINGLE, "cpu")["x"] is x


def test_the_first_rank_must_give_something_to_broadcast():
    with pytest.raises(ValueError, match="must give the tensors"):
        broadcast_tensors(None, SINGLE, "cpu")


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("layer_type", [ColumnParallelLinear, RowParallelLinear])
def test_a_parallel_linear_is_a_linear(layer_type, sequence_parallel):
    layer = _ready(layer_type(4, 6, group=SINGLE, init=_normal, sequence_parallel=sequence_parallel))
    nn.init.normal_(layer.bias)
    x = torch.randn(3, 2, 4)
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight, layer.bias))


def test_the_steps_of_a_row_parallel_linear_are_the_whole():
    layer = _ready(RowParallelLinear(4, 6, group=SINGLE, init=_normal))
    nn.init.normal_(layer.bias)
    x = torch.randn(3, 4)
    torch.testing.assert_close(layer.finish(layer.partial(x)), layer(x))


def test_biases_start_at_zero_and_may_be_left_out():
    assert not _ready(ColumnParallelLinear(4, 6, group=SINGLE, init=_normal)).bias.any()
    assert not _ready(RowParallelLinear(4, 6, group=SINGLE, init=_normal)).bias.any()
    assert RowParallelLinear(4, 6, group=SINGLE, init=_normal, bias=False).bias is None


def test_layers_take_the_type_asked_for():
    layer = _ready(ColumnParallelLinear(4, 6, group=SINGLE, init=_normal, dtype=torch.bfloat16))
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.bfloat16}


def test_fused_parts_cannot_be_gathered_as_one():
    with pytest.raises(ValueError, match="interleave the fused parts"):
        ColumnParallelLinear(4, 6, group=SINGLE, init=_normal, parts=(4, 2), gather_output=True)


def test_a_vocab_parallel_embedding_is_an_embedding():
    layer = _ready(VocabParallelEmbedding(10, 3, group=SINGLE, init=_normal, valid_rows=7))
    tokens = torch.tensor([[0, 6], [9, 3]])
    assert torch.equal(layer(tokens), functional.embedding(tokens, layer.weight))
    assert not layer.weight[7:].any()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-5)]
)
def test_the_loss_is_cross_entropy_over_the_unpadded_vocabulary(dtype, tolerance):
    logits = torch.randn(2, 3, 8, dtype=torch.float64).to(dtype).requires_grad_()
    labels = torch.tensor([[0, 4, -100], [2, 3, -1]])
    plain = logits.detach()[..., :5].to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    expected = functional.cross_entropy(
        plain.flatten(0, 1), labels.clamp(min=-1).flatten(), ignore_index=-1, reduction="none"
    )
    losses = vocab_parallel_cross_entropy(logits, labels, SINGLE, vocab_size=5)
    torch.testing.assert_close(losses.flatten(), expected, rtol=tolerance, atol=tolerance)
    losses.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(
        logits.grad[..., :5], plain.grad.to(dtype), rtol=1e-2 if dtype == torch.bfloat16 else tolerance, atol=tolerance
    )
    assert not logits.grad[..., 5:].any()


def test_the_gradient_of_the_loss_is_its_derivative():
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, -100, 4])
    assert torch.autograd.gradcheck(lambda z: vocab_parallel_cross_entropy(z, labels, SINGLE, vocab_size=5), (logits,))


def test_the_logits_are_left_as_they_were():
    logits = torch.randn(4, 6, requires_grad=True)
    before = logits.detach().clone()
    vocab_parallel_cross_entropy(logits, torch.tensor([0, 1, 2, 3]), SINGLE).sum().backward()
    assert torch.equal(logits.detach(), before)
