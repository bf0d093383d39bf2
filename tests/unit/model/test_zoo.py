"""Published settings, shrunk in size but with every feature kept, build and train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.model.gpt import build_layer_specs
from megatron.model.loss import masked_loss_sum
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from tests.unit.model.builders import VOCAB_SIZE, random_batch

# What the model depends on; batch sizes, data, launcher and optimizer of the published files do not matter here.
KEPT = (
    "activation",
    "attention_dropout",
    "bias_gelu_fusion",
    "gpt_j_residual",
    "hidden_dropout",
    "init_method",
    "mlp_multiple_of",
    "no_weight_tying",
    "norm",
    "num_kv_heads",
    "output_layer_init_method",
    "pos_emb",
    "rms_norm_epsilon",
    "rotary_emb_base",
    "rotary_pct",
    "use_bias_in_attn_linear",
    "use_bias_in_mlp",
    "use_bias_in_norms",
)


def shrink(published: dict[str, Any], divisor: int) -> dict[str, Any]:
    """The same architecture with hidden size, heads and sequence divided, and three layers."""
    settings = {key: published[key] for key in KEPT if key in published}
    settings |= {"num_layers": 3, "train_iters": 1, "train_micro_batch_size_per_gpu": 2}
    for key in ("hidden_size", "num_attention_heads"):
        settings[key] = published[key] // divisor
    for key in ("seq_length", "max_position_embeddings"):
        settings[key] = 16
    if "intermediate_size" in published:
        settings["intermediate_size"] = published["intermediate_size"] // divisor
    if published.get("mlp_multiple_of", 1) > 1:
        settings["mlp_multiple_of"] = max(published["mlp_multiple_of"] // divisor, 1)
    if "attention_config" in published:
        settings["attention_config"] = [[published["attention_config"][0][0], "all"]]
    return settings


@pytest.mark.parametrize(
    ("name", "divisor", "mlp_width"),
    [("configs/pythia/70M.yml", 4, 512), ("configs/20B.yml", 32, 768), ("configs/llama2/7B.yml", 32, 344)],
)
def test_published_settings_build_and_give_a_finite_loss_and_gradients(
    reference: Path, name: str, divisor: int, mlp_width: int
) -> None:
    published = json.loads((reference / "model_zoo.json").read_text())[name]
    args = NeoXArgs.from_dict(shrink(published, divisor))
    assert args.mlp_width == mlp_width
    model = SequentialModel(
        build_layer_specs(args, vocab_size=VOCAB_SIZE, padded_vocab_size=64), BuildContext(), seed=1
    )
    tokens, labels, loss_mask, position_ids = random_batch()
    loss = masked_loss_sum(model(tokens, position_ids), labels, loss_mask, SINGLE, VOCAB_SIZE) / loss_mask.sum()
    loss.backward()
    # Small initial weights give a nearly uniform prediction.
    assert loss.item() == pytest.approx(torch.tensor(VOCAB_SIZE).log().item(), abs=1.0)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
