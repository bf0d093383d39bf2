"""Settings that fit every tensor and still change the model are noticed when a checkpoint is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron.checkpointing.settings import (
    KEYS,
    SETTINGS,
    read_origins,
    read_settings,
    read_values,
    settings_warning,
    settings_yaml,
)
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.keys.model import ModelArgs
from megatron.neox_arguments.resolving.unsupported import NOT_BUILT
from tests.unit.neox_arguments.minimal import build

SAVED: dict[str, Any] = {"pos_emb": "rotary", "rotary_pct": 0.5}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.yml").write_text(settings_yaml(build(**SAVED)))
    return tmp_path


def test_the_same_model_in_another_run_is_no_reason_to_warn(checkpoint: Path) -> None:
    assert settings_warning(checkpoint, build(**SAVED, seed=7, lr_decay_style="cosine", attention_dropout=0.1)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_attention_heads": 2}, "num_attention_heads was 4 and is 2"),
        ({"rotary_pct": 1.0}, "rotary_pct was 0.5 and is 1.0"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}},
            "rope_scaling was None and is {'type': 'linear', 'factor': 2}",
        ),
        ({"gpt_j_residual": True}, "gpt_j_residual was False and is True"),
        ({"norm_position": "post"}, "norm_position was pre and is post"),
        ({"tokenizer_type": "CharLevelTokenizer"}, "tokenizer_type was GPT2BPETokenizer and is CharLevelTokenizer"),
    ],
)
def test_a_value_that_changes_the_model_is_named_with_both_values(
    checkpoint: Path, changes: dict[str, Any], said: str
) -> None:
    warning = settings_warning(checkpoint, build(**{**SAVED, **changes}))
    assert warning is not None
    assert said in warning
    assert str(checkpoint / "configs" / "config.yml") in warning


def test_a_checkpoint_that_does_not_say_how_it_was_trained_is_taken_as_it_is(tmp_path: Path, checkpoint: Path) -> None:
    assert settings_warning(tmp_path / "elsewhere", build()) is None
    for content in (b"\xff", b"a: [", b"just text"):
        (checkpoint / "configs" / "config.yml").write_bytes(content)
        assert settings_warning(checkpoint, build()) is None


def test_every_key_exists() -> None:
    assert set(KEYS) <= set(NeoXArgs.model_fields)


# Keys whose other values give tensors of other names or shapes, into which a checkpoint does not fit.
OTHER_TENSORS = {
    *("num_layers", "hidden_size", "intermediate_size", "mlp_multiple_of", "expansion_factor", "no_weight_tying"),
    *("use_bias_in_norms", "use_bias_in_attn_linear", "use_bias_in_attn_output", "use_bias_in_mlp"),
    *("use_bias_in_output_layer", "rpe_num_buckets", "gmlp_attn_dim", "max_position_embeddings"),
}
# Keys that change how the same numbers are computed, or training alone.
SAME_MODEL = {
    *("precision", "seq_length", "attention_config", "apply_query_key_layer_scaling", "attention_softmax_in_fp32"),
    *("layernorm_fusion", "rmsnorm_fusion", "rope_fusion", "bias_dropout_fusion", "use_flashattn_swiglu"),
    *("scaled_upper_triang_masked_softmax_fusion", "scaled_masked_softmax_fusion", "fused_kernels_build_path"),
    *("init_method", "init_method_std", "output_layer_init_method", "use_cpu_initialization"),
    *("hidden_dropout", "attention_dropout", "output_layer_parallelism"),
    *("fused_linear_cross_entropy", "sdpa_backend", "fp8", "fp8_format", "fp8_wgrad"),
    *("te_columnparallel", "te_rowparallel", "te_layernorm_mlp", "te_mha", "te_fp8_format"),
}


def test_no_key_of_the_model_is_forgotten() -> None:
    """Once a key that is not built yet is, it has to be put somewhere."""
    compared = set(KEYS) & set(ModelArgs.model_fields)
    assert set(ModelArgs.model_fields) - set(NOT_BUILT) == compared | OTHER_TENSORS | SAME_MODEL
    assert not compared & (OTHER_TENSORS | SAME_MODEL)


def test_settings_are_read_back_with_where_they_came_from(checkpoint: Path) -> None:
    values = {**build(**SAVED).to_dict(), "prompt_end": "\n# seed\nseed: 3\n" * 9}
    origins = {
        "prompt_end": "a\nb/\x07é.yml:3:1",
        "rotary_pct": "command line",
        "zero_optimization": "x.yml:1:1, stage: command line",
    }
    args = NeoXArgs.from_resolved(values, origins=origins)
    (checkpoint / SETTINGS).write_text(settings_yaml(args), encoding="utf-8")
    assert read_settings(checkpoint) == args
    assert read_origins(checkpoint) == {**origins, "prompt_end": "a?b/?é.yml:3:1"}
    assert (read_values(checkpoint) or {})["prompt_end"] == values["prompt_end"]


def test_a_checkpoint_without_origins_has_none(tmp_path: Path, checkpoint: Path) -> None:
    (checkpoint / SETTINGS).write_text("a: 1\nseed: 3\n")
    assert read_origins(checkpoint) == {}
    assert read_origins(tmp_path / "elsewhere") == {}
    assert read_values(tmp_path / "elsewhere") is None
