"""Architectures of current open models train in a parallel layout as on one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.forked import train_forked

LLAMA_LIKE: dict[str, Any] = {
    "norm": "rmsnorm",
    "activation": "swiglu",
    "intermediate_size": 96,
    "mlp_multiple_of": 16,
    "rotary_pct": 1.0,
    "gpt_j_residual": False,
    "use_bias_in_mlp": False,
    "output_layer_init_method": "scaled_normal",
    "attention_config": [[["flash", "global"], "all"]],
    "checkpoint_activations": True,
    "train_iters": 6,
    "train_micro_batch_size_per_gpu": 2,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "wide heads, normalised each; biases of queries, keys and values; window": {
        "num_kv_heads": 2,
        "head_dim": 12,
        "use_qk_layernorm": True,
        "use_bias_in_attn_output": False,
        "sliding_window_width": 6,
    },
    "norms over all heads and behind attention and MLP; scaled rotations": {
        "use_qk_layernorm": True,
        "qk_layernorm_scope": "all_heads",
        "norm_position": "post",
        "use_bias_in_attn_linear": False,
        "rope_scaling": {"type": "yarn", "factor": 2, "original_max_position_embeddings": 16, "beta_fast": 2},
    },
}
SPLIT = {"num_gpus": 4, "model_parallel_size": 2, "pipe_parallel_size": 2, "sequence_parallel": True}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tensor_sequence_and_pipeline_parallel_runs_equal_one_process(
    name: str, tmp_path: Path, small_data: Path
) -> None:
    settings = {**LLAMA_LIKE, **ARCHITECTURES[name]}
    alone = train_forked(tmp_path / "alone", small_data, num_gpus=1, **settings)
    split = train_forked(tmp_path / "split", small_data, **SPLIT, **settings)
    assert len(alone.losses) == 6
    assert alone.losses[-1] < alone.losses[0] - 0.5
    assert split.losses == pytest.approx(alone.losses, rel=1e-5, abs=0)
    norms, expected = ([step["grad_norm"] for step in run.steps.values()] for run in (split, alone))
    assert norms == pytest.approx(expected, rel=1e-4, abs=0)
