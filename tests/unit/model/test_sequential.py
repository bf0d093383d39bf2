"""The sequential model: names, layout-free initial weights, tying, recomputation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from megatron.model.gpt import build_layer_specs
from megatron.model.loss import masked_loss_sum
from megatron.model.sequential import SequentialModel, build_layer
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE, Group
from megatron.mpu.shard import shard_of
from tests.unit.model.builders import (
    FP64,
    VARIANTS,
    VOCAB_SIZE,
    build_args,
    build_model,
    dropout_keys,
    parameters_by_name,
    random_batch,
)


def loss_and_gradients(model: SequentialModel) -> tuple[Tensor, dict[str, Tensor]]:
    tokens, labels, loss_mask, position_ids = random_batch()
    logits = model(tokens, position_ids, dropout_keys=dropout_keys().keys)
    loss = masked_loss_sum(logits, labels, loss_mask, SINGLE, VOCAB_SIZE)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in parameters_by_name(model).items()}
    return loss.detach(), {name: gradient for name, gradient in gradients.items() if gradient is not None}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant: str) -> None:
    model = build_model(build_args(**VARIANTS[variant]))
    loss, gradients = loss_and_gradients(model)
    assert loss.isfinite()
    assert set(gradients) == set(parameters_by_name(model))
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_approximates_full_precision(variant: str) -> None:
    args = build_args(**VARIANTS[variant])
    tokens, _, _, position_ids = random_batch()
    expected = build_model(args)(tokens, position_ids)
    logits = build_model(args, context=BuildContext(dtype=torch.bfloat16))(tokens, position_ids)
    assert logits.dtype == torch.bfloat16
    assert (logits.double() - expected).norm() < 0.05 * expected.norm()


def test_module_paths_are_the_layout_free_names() -> None:
    model = build_model(build_args(**VARIANTS["llama"]))
    assert [name for name, _ in model.named_parameters()] == list(parameters_by_name(model))


def test_initial_weights_are_a_function_of_name_and_seed() -> None:
    args = build_args(no_weight_tying=True)

    def weights(seed: int, padded_vocab_size: int = 64) -> dict[str, Tensor]:
        specs = build_layer_specs(args, vocab_size=VOCAB_SIZE, padded_vocab_size=padded_vocab_size)
        return dict(parameters_by_name(SequentialModel(specs, BuildContext(), seed=seed)))

    first, again, other, padded = weights(1), weights(1), weights(2), weights(1, padded_vocab_size=128)
    for name, value in first.items():
        assert torch.equal(value, again[name])
        if value.dim() == 2:
            assert not torch.equal(value, other[name])
        rows = VOCAB_SIZE if name in ("0.word_embeddings.weight", "6.final_linear.weight") else len(value)
        assert torch.equal(value[:rows], padded[name][:rows])
        assert not padded[name][rows:].any()
    assert not torch.equal(first["2.mlp.linear1.weight"], first["3.mlp.linear1.weight"])


def test_projections_into_the_residual_stream_have_their_own_init_method() -> None:
    args = build_args(
        init_method="normal", output_layer_init_method="scaled_normal", init_method_std=0.5, hidden_size=64
    )
    specs = build_layer_specs(args, vocab_size=VOCAB_SIZE, padded_vocab_size=64)
    model = SequentialModel(specs, BuildContext(), seed=0)
    for name, parameter in parameters_by_name(model).items():
        if parameter.dim() == 2:
            into_residual = name.endswith(("attention.dense.weight", "mlp.linear2.weight"))
            expected = 0.25 if into_residual else 0.5  # 2 layers: divided by sqrt(4)
            rows = parameter[: shard_of(parameter).logical_shape[0]]
            assert rows.std().item() == pytest.approx(expected, rel=0.1)


def test_a_tied_head_is_the_embedding() -> None:
    model = build_model(build_args())
    assert model.layer(6).word_embeddings.weight is model.layer(0).word_embeddings.weight
    assert not [name for name in parameters_by_name(model) if name.startswith("6.")]


def test_tied_layers_built_apart_know_that_they_are_one() -> None:
    specs = build_layer_specs(build_args(), vocab_size=VOCAB_SIZE, padded_vocab_size=64)
    infos = [shard_of(build_layer(spec, FP64).word_embeddings.weight) for spec in (specs[0], specs[-1])]
    assert [(info.name, info.tied, info.full_shape) for info in infos] == [
        ("0.word_embeddings.weight", "0.word_embeddings.weight", (64, 32))
    ] * 2


def test_untied_embeddings_are_not_marked() -> None:
    args = build_args(no_weight_tying=True)
    model = build_model(args)
    assert all(shard_of(parameter).tied is None for parameter in model.parameters())


@pytest.mark.parametrize("every", [1, 2, 3])
def test_recomputation_changes_neither_loss_nor_gradients_even_with_dropout(every: int) -> None:
    args = build_args(num_layers=3, hidden_dropout=0.2, attention_dropout=0.2, gpt_j_residual=True)
    expected_loss, expected = loss_and_gradients(build_model(args))
    loss, gradients = loss_and_gradients(build_model(args, checkpoint_num_layers=every))
    assert torch.equal(loss, expected_loss)
    assert all(torch.equal(gradients[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize(("every", "forwards"), [(0, 3), (1, 6), (2, 6)])
def test_recomputation_runs_each_block_twice_in_training_only(every: int, forwards: int) -> None:
    model = build_model(build_args(num_layers=3), checkpoint_num_layers=every)
    calls: list[int] = []
    for number in (2, 3, 4):
        model.layer(number).input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    loss_and_gradients(model)
    assert len(calls) == forwards
    calls.clear()
    loss_and_gradients(model.eval())
    assert len(calls) == 3


@pytest.mark.parametrize(("every", "kept"), [(0, 0), (1, 3), (2, 2), (3, 1)])
def test_only_the_inputs_of_every_so_many_blocks_are_kept(
    every: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def count(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return checkpoint(function, *arguments, **options)

    monkeypatch.setattr("megatron.model.sequential.checkpoint", count)
    loss_and_gradients(build_model(build_args(num_layers=3), checkpoint_num_layers=every))
    assert len(calls) == kept


def test_torch_sees_the_tensors_of_what_is_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It restores the random state of the GPUs of the tensors it finds among the arguments, in plain containers at most."""
    seen: list[int] = []

    def look(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        seen.append(sum(isinstance(leaf, Tensor) for leaf in tree_leaves(arguments)))
        return checkpoint(function, *arguments, **options)

    monkeypatch.setattr("megatron.model.sequential.checkpoint", look)
    loss_and_gradients(build_model(build_args(num_layers=3), checkpoint_num_layers=1))
    assert len(seen) == 3
    assert all(seen)


@pytest.mark.parametrize("variant", ["llama", "qwen3", "olmo2"])
def test_a_rank_holds_its_part_of_every_sharded_parameter(variant: str) -> None:
    args = build_args(**VARIANTS[variant])
    whole = parameters_by_name(build_model(args))
    for rank in range(2):
        group = Group(rank, 2, (0, 1))
        part = parameters_by_name(build_model(args, context=BuildContext(group, torch.float64)))
        for name, parameter in part.items():
            assert torch.equal(parameter, shard_of(parameter).cut(whole[name])), name
    assert part["2.mlp.linear1.weight"].shape[0] * 2 == whole["2.mlp.linear1.weight"].shape[0]
