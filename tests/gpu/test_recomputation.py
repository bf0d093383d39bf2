"""Recomputation on a GPU: scores computed again, and inputs that wait in host memory, give the numbers of what is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron.model.kept_inputs import KeptInputs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from tests.gpu.compare import distance, furthest, gradients, never_waiting
from tests.unit.model.builders import build_args, build_model, dropout_keys, random_batch

pytestmark = pytest.mark.gpu

LAYERS, HIDDEN = 6, 512
SIZES = {"num_layers": LAYERS, "hidden_size": HIDDEN}
DROPOUT = {"hidden_dropout": 0.2, "attention_dropout": 0.2}


def build(device: torch.device, settings: dict[str, Any], **options: Any) -> SequentialModel:
    context = BuildContext(dtype=torch.bfloat16, device=device)
    return build_model(build_args(**SIZES, **DROPOUT, **settings), context=context, **options)


def logits_of(model: SequentialModel, device: torch.device) -> torch.Tensor:
    tokens, _, _, position_ids = (x.to(device) for x in random_batch(rows=16))
    keys = dropout_keys(rows=16).keys.to(device)
    with never_waiting(device):
        logits: torch.Tensor = model(tokens, position_ids, dropout_keys=keys)
    return logits


def held_after_forward(model: SequentialModel, device: torch.device) -> int:
    """Bytes of the device that a forward pass leaves behind."""
    before = torch.cuda.memory_allocated(device)
    logits = logits_of(model, device)
    held = torch.cuda.memory_allocated(device) - before
    del logits
    return held


def test_inputs_in_host_memory_give_the_same_gradients_and_leave_the_device(device: torch.device) -> None:
    found, held = [], []
    for on_host in (False, True):
        model = build(device, {}, checkpoint_num_layers=1, kept_inputs=KeptInputs(on_host=on_host))
        for _ in range(2):  # the first pass makes what all later ones share
            held.append(held_after_forward(model, device))
        logits = logits_of(model, device)
        with never_waiting(device):
            logits.float().square().sum().backward()
        found.append({"logits": logits.detach(), **gradients(model)})
    error, where = furthest(found[1], found[0], measure=distance)
    assert error <= 1e-5, where
    inputs = 2 * 16 * 16 * HIDDEN * LAYERS
    assert held[1] - held[3] >= 0.8 * inputs


@pytest.mark.parametrize("core", ["global", "flash"])
def test_scores_computed_again_give_the_same_gradients(core: str, device: torch.device) -> None:
    settings = {"attention_config": [[[core], "all"]], "checkpoint_activations": True}
    found, held = [], []
    for granularity in ("full", "selective"):  # blocks are recomputed only where a model is told so
        model = build(device, {**settings, "recompute_granularity": granularity})
        for _ in range(2):
            held.append(held_after_forward(model, device))
        logits = logits_of(model, device)
        with never_waiting(device):
            logits.float().square().sum().backward()
        found.append({"logits": logits.detach(), **gradients(model)})
    error, where = furthest(found[1], found[0], measure=distance)
    assert error <= 1e-5, where
    weights = 2 * 16 * 4 * 16 * 16
    assert held[1] - held[3] >= LAYERS * weights
