"""Settings that fit every tensor and still change the model are noticed when a checkpoint is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron.checkpointing.settings import KEYS, settings_warning, settings_yaml
from megatron.neox_arguments import NeoXArgs
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
