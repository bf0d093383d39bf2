"""The model on several tensor-parallel ranks computes what it computes on one: logits, loss and every gradient, in fp64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from megatron.model.cache import KeyValueCache
from megatron.model.loss import masked_loss_sum
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE, Group
from megatron.mpu.mappings import gather_from_tensor_region
from megatron.mpu.shard import ShardInfo, shard_of
from tests.unit.model.builders import (
    VARIANTS,
    VOCAB_SIZE,
    build_args,
    build_model,
    dropout_keys,
    parameters_by_name,
    random_batch,
)
from tests.worlds import run_world

TOLERANCE = 1e-10
DECODED = (
    *("llama", "pythia", "qwen3", "olmo2", "mpt"),
    "norms with biases behind attention and MLP and over all heads",
    "sliding window, llama3 scaling, biases of queries, keys and values",
    "parallel residual, yarn scaling, narrow heads with norms and biases",
)
DROPOUT = {"hidden_dropout": 0.3, "attention_dropout": 0.3}
FUSED: dict[str, dict[str, Any]] = {
    "in sequence": {**DROPOUT},
    "side by side": {"gpt_j_residual": True, **DROPOUT},
    "side by side, nothing dropped": {"gpt_j_residual": True},
    "a bias of one branch only": {"gpt_j_residual": True, "use_bias_in_attn_output": False},
    "norms behind": {**VARIANTS["norms with biases behind attention and MLP and over all heads"], **DROPOUT},
    "gated, rotary": {**VARIANTS["scalenorm, gated with biases"], **DROPOUT},
}
FUSION = {"bias_dropout_fusion": True, "rope_fusion": True, "use_flashattn_swiglu": True}


@pytest.mark.parametrize("size", [2, 4])
def test_tensor_parallel_ranks_compute_what_one_process_computes(size: int) -> None:
    for report in run_world(size, compare_all_variants):
        assert len(report) == 2 * len(VARIANTS)
        wrong = {case: errors for case, errors in report.items() if max(errors.values()) > TOLERANCE}
        assert not wrong


def compare_all_variants(rank: int) -> dict[str, dict[str, float]]:
    """The largest absolute errors of logits, loss and gradients by name, for each variant with and without sequence parallelism."""
    group = world_group()
    report = {}
    for name, settings in VARIANTS.items():
        expected = run_model(build(settings, SINGLE), SINGLE)
        for sequence_parallel in (False, True):
            found = run_model(build(settings, group, sequence_parallel=sequence_parallel), group)
            report[f"{name}, sequence parallel {sequence_parallel}"] = compare(found, expected)
    return report


def compare(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """Largest absolute error of each quantity; a gradient is compared with this rank's part of the whole one."""
    logits = (found["logits"][..., :VOCAB_SIZE] - expected["logits"][..., :VOCAB_SIZE]).abs().max().item()
    errors = {"logits": logits, "loss": (found["loss"] - expected["loss"]).abs().item()}
    assert set(found["gradients"]) == set(expected["gradients"])
    for name, (gradient, info) in found["gradients"].items():
        whole, whole_info = expected["gradients"][name]
        errors[name] = (gradient - info.cut(with_padding_of(whole, whole_info, info))).abs().max().item()
    return errors


def with_padding_of(gradient: Tensor, info: ShardInfo, other: ShardInfo) -> Tensor:
    """The gradient of one layout as it must be in another, whose vocabulary has more padding: zero there."""
    assert info.logical_shape == other.logical_shape
    result = torch.zeros(other.full_shape, dtype=gradient.dtype)
    result[: info.logical_shape[0]] = gradient[: info.logical_shape[0]]
    return result


def run_model(model: SequentialModel, group: Group) -> dict[str, Any]:
    """One forward and backward pass: whole logits, summed loss, and (gradient, ShardInfo) of each parameter."""
    tokens, labels, loss_mask, position_ids = random_batch()
    logits = model(tokens, position_ids, dropout_keys=dropout_keys().keys)
    loss = masked_loss_sum(logits, labels, loss_mask, group, VOCAB_SIZE)
    loss.backward()
    gradients = {name: (value.grad, shard_of(value)) for name, value in parameters_by_name(model).items()}
    with torch.no_grad():
        return {"logits": gather_from_tensor_region(logits, group), "loss": loss.detach(), "gradients": gradients}


def build(
    settings: Mapping[str, Any], group: Group, *, sequence_parallel: bool = False, **options: Any
) -> SequentialModel:
    """The variant with enough heads for four ranks; the vocabulary has other padding on one process than on several."""
    heads = {"hidden_size": 64, "num_attention_heads": 8, **({"num_kv_heads": 4} if "num_kv_heads" in settings else {})}
    layout = {"sequence_parallel": sequence_parallel, "model_parallel_size": group.size, "global_num_gpus": group.size}
    context = BuildContext(group, torch.float64)
    padded_vocab_size = 60 if group.size == 1 else 72
    args = build_args(**{**settings, **heads, **layout})
    return build_model(args, context=context, padded_vocab_size=padded_vocab_size, **options)


def world_group() -> Group:
    size = dist.get_world_size()
    return Group(dist.get_rank(), size, tuple(range(size)), dist.group.WORLD)


def test_dropout_and_generation_on_two_ranks() -> None:
    for report in run_world(2, check_dropout_and_generation):
        assert report == dict.fromkeys(report, True)
        assert len(report) == 10 + 2 * len(FUSED) + len(DECODED)


def check_dropout_and_generation(rank: int) -> dict[str, bool]:
    group = world_group()
    report = {}
    for settings in ({}, {"gpt_j_residual": True}, VARIANTS["qwen3"], VARIANTS["olmo2"]):
        for is_split in (False, True):
            case = f"dropout, in sequence {is_split}: {settings}"
            report[case] = drops_as_one_process(group, {**settings, **DROPOUT}, is_split)
    for name, settings in FUSED.items():
        for is_split in (False, True):
            case = f"fused, in sequence {is_split}: {name}"
            report[case] = drops_as_one_process(group, settings, is_split, **FUSION)
    for is_split in (False, True):
        report[f"rewards, in sequence {is_split}"] = rewards_equal_one_process(group, is_split)
    for variant in DECODED:
        report[f"decoding: {variant}"] = decoding_equals_forward(group, VARIANTS[variant])
    return report


def drops_as_one_process(group: Group, settings: Mapping[str, Any], sequence_parallel: bool, **fusion: bool) -> bool:
    """Logits, loss and gradients are those of one process, and recomputation draws the same masks again.

    fusion: keys of fused kernels, for the several processes only: here they choose the operations in plain torch.
    """
    expected = run_model(build(settings, SINGLE), SINGLE)
    model = build({**settings, **fusion}, group, sequence_parallel=sequence_parallel, checkpoint_num_layers=1)
    return max(compare(run_model(model, group), expected).values()) < TOLERANCE


def rewards_equal_one_process(group: Group, sequence_parallel: bool) -> bool:
    """The rewards, the same on every rank, and the gradients of their sum with weights."""
    tokens, _, weights, position_ids = random_batch()
    found = []
    for ranks, in_sequence in ((SINGLE, False), (group, sequence_parallel)):
        model = build({"train_impl": "rm"}, ranks, sequence_parallel=in_sequence)
        rewards = model(tokens, position_ids)
        (rewards * weights).sum().backward()
        parameters = parameters_by_name(model)
        whole = ("6.rm_linear.weight", "5.norm.weight", "2.attention.dense.bias")  # which every rank has
        found.append([rewards, *(parameters[name].grad for name in whole)])
    return all(torch.allclose(ours, expected, atol=TOLERANCE, rtol=0) for expected, ours in zip(*found, strict=True))


@torch.no_grad()
def decoding_equals_forward(group: Group, settings: Mapping[str, Any]) -> bool:
    model = build(settings, group).eval()
    tokens, _, _, position_ids = random_batch()
    cache = KeyValueCache(batch_size=2, max_length=16)
    steps = [tokens[:, :9], *tokens[:, 9:].split(1, dim=1)]
    logits = torch.cat([model(step, cache.next_position_ids(step.shape[1]), cache) for step in steps], dim=1)
    return torch.allclose(logits, model(tokens, position_ids), atol=1e-10, rtol=0)
