"""Small GPTs of every kind compute on the GPU what they compute on the CPU, without ever waiting for the GPU in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.model.loss import masked_loss_sum
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE
from tests.gpu.compare import CPU, FP32_LIMIT, deviation, distance, furthest, gradients, never_waiting
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model, dropout_keys, random_batch

pytestmark = pytest.mark.gpu

DROPOUT = {"hidden_dropout": 0.2, "attention_dropout": 0.2}
HALF = (torch.bfloat16, torch.float16)


def build(
    settings: dict[str, Any], device: torch.device, dtype: torch.dtype = torch.float32, **options: Any
) -> SequentialModel:
    return build_model(build_args(**settings), context=BuildContext(dtype=dtype, device=device), **options)


def loss_and_gradients(model: SequentialModel, device: torch.device) -> dict[str, Tensor]:
    tokens, labels, loss_mask, position_ids = (x.to(device) for x in random_batch())
    logits = model(tokens, position_ids, dropout_keys=dropout_keys().keys.to(device))
    loss = masked_loss_sum(logits, labels, loss_mask, SINGLE, VOCAB_SIZE)
    loss.backward()
    return {"logits": logits.detach(), "loss": loss.detach(), **gradients(model)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_computes_in_fp32_what_it_computes_on_the_cpu(variant: str, device: torch.device) -> None:
    settings = dict(VARIANTS[variant])
    found, expected = (loss_and_gradients(build(settings, each), each) for each in (device, CPU))
    error, where = furthest(found, expected)
    assert error <= FP32_LIMIT, where


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_in_half_precision_approximates_fp32(variant: str, dtype: torch.dtype, device: torch.device) -> None:
    settings = dict(VARIANTS[variant])
    found = loss_and_gradients(build(settings, device, dtype), device)
    expected = loss_and_gradients(build(settings, CPU), CPU)
    assert found["logits"].dtype == dtype
    assert found["loss"].dtype == torch.float32
    unit = torch.finfo(dtype).eps
    assert distance(found.pop("logits"), expected.pop("logits")) <= 4 * unit
    assert deviation(found.pop("loss"), expected.pop("loss")) <= unit
    assert set(found) == set(expected)
    # A rounded input may fall on the other side of a ReLU, which turns a whole unit on or off: few units, large steps.
    limit = 0.15 if settings.get("activation") == "relu" else 4 * unit
    assert distance(joined(found), joined(expected)) <= limit


def joined(tensors: Mapping[str, Tensor]) -> Tensor:
    """All values in the order of the names, one vector."""
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("core", ["global", "flash"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_recomputation_repeats_the_dropout_of_the_first_pass(
    dtype: torch.dtype, core: str, every: int, device: torch.device
) -> None:
    settings = {"num_layers": 3, "attention_config": [[[core], "all"]], "gpt_j_residual": True, **DROPOUT}
    results = []
    for checkpoint_num_layers in (0, every):
        model = build(settings, device, dtype, checkpoint_num_layers=checkpoint_num_layers)
        results.append(loss_and_gradients(model, device))
    kept, recomputed = results
    assert torch.equal(recomputed["loss"], kept["loss"])
    # Other masks would change gradients by their own size.
    error, where = furthest(recomputed, kept, measure=distance)
    assert error <= 1e-5, where


@pytest.mark.parametrize("settings", [{}, {"gpt_j_residual": True}, VARIANTS["llama"]])
def test_the_same_is_dropped_as_on_the_cpu(settings: dict[str, Any], device: torch.device) -> None:
    found, expected = (loss_and_gradients(build({**settings, **DROPOUT}, each), each) for each in (device, CPU))
    error, where = furthest(found, expected)
    assert error <= FP32_LIMIT, where


def test_dropout_differs_between_steps_and_is_absent_in_evaluation(device: torch.device) -> None:
    model = build(DROPOUT, device)
    tokens, _, _, position_ids = (x.to(device) for x in random_batch())
    first, second = (dropout_keys(step=step).keys.to(device) for step in range(2))
    with torch.no_grad():
        outputs = [model(tokens, position_ids, dropout_keys=keys) for keys in (first, first, second)]
        assert torch.equal(outputs[0], outputs[1])
        assert not torch.equal(outputs[0], outputs[2])
        model.eval()
        assert torch.equal(model(tokens, position_ids, dropout_keys=first), model(tokens, position_ids))


@pytest.mark.parametrize("checkpoint_num_layers", [0, 1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_and_backward_never_wait_for_the_gpu(
    variant: str, checkpoint_num_layers: int, device: torch.device
) -> None:
    """A value read back, or a tensor made on the CPU and copied, is an error here: each would leave the GPU idle."""
    model = build({**VARIANTS[variant], **DROPOUT}, device, torch.bfloat16, checkpoint_num_layers=checkpoint_num_layers)
    tokens, labels, loss_mask, position_ids = (x.to(device) for x in random_batch())
    keys = dropout_keys().keys.to(device)
    with never_waiting(device):
        masked_loss_sum(
            model(tokens, position_ids, dropout_keys=keys), labels, loss_mask, SINGLE, VOCAB_SIZE
        ).backward()
