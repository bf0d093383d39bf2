"""The loss of a micro-batch: the same inside the head as by way of logits, and inside it only where its gradients can be kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.data.batch import Batch
from megatron.engine.model_loss import fuses_head, model_loss
from megatron.mpu.groups import SINGLE
from megatron.mpu.random_bits import sample_keys
from megatron.neox_arguments.derive import derive_fused_head
from megatron.training.objectives.next_token import NextTokenObjective
from tests.toy_model import ToyObjective
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model

OBJECTIVE = NextTokenObjective(group=SINGLE, vocab_size=VOCAB_SIZE)


@pytest.mark.parametrize(
    ("settings", "is_fused"),
    [
        ({"precision": "fp32"}, True),
        ({"precision": "bfloat16"}, True),
        ({"precision": "fp16"}, False),
        ({"fused_linear_cross_entropy": False}, False),
    ],
    ids=str,
)
def test_the_head_is_fused_where_its_gradients_need_no_loss_scale(settings: dict[str, Any], is_fused: bool) -> None:
    assert fuses_head(build_args(**settings), OBJECTIVE) == is_fused


def test_only_objectives_of_the_next_token_fuse_the_head() -> None:
    assert not fuses_head(build_args(), ToyObjective(SINGLE))
    assert derive_fused_head(True, precision="fp32", train_impl="normal")
    assert not derive_fused_head(True, precision="fp32", train_impl="dpo")


@pytest.mark.parametrize("variant", ["gpt2", "gpt-j"])
def test_documents_masks_and_dropout_count_inside_the_head_as_without(variant: str) -> None:
    """A tied head, and one with a bias."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(VOCAB_SIZE, (2, 17), generator=generator)
    batch = Batch(
        text[:, :-1],
        text[:, 1:],
        torch.rand(2, 16, generator=generator).round(),
        torch.arange(16).expand(2, -1),
        document_ids=torch.tensor([[0] * 5 + [1] * 11, [0] * 16], dtype=torch.int32),
        dropout_keys=sample_keys(range(2), seed=1, step=0),
    )

    def computed(*, fused: bool) -> list[Tensor]:
        model = build_model(build_args(**VARIANTS[variant], hidden_dropout=0.1)).train()
        loss = model_loss(model, OBJECTIVE, batch, fused=fused)
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    for inside, outside in zip(computed(fused=True), computed(fused=False), strict=True):
        torch.testing.assert_close(inside, outside, rtol=1e-10, atol=1e-12)
