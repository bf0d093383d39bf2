from __future__ import annotations

from typing import Any

import pytest

from megatron.conversion.legacy.remarks import differing_computations
from tests.unit.neox_arguments.minimal import build

ALIBI = {"pos_emb": "alibi"}
SCALING = {"apply_query_key_layer_scaling": True}


@pytest.mark.parametrize(
    ("changes", "saved", "words"),
    [
        (ALIBI, SCALING, ["multiplies the bias of ALiBi"]),
        (ALIBI, {}, []),
        ({"pos_emb": "rotary"}, SCALING, []),
        ({"sliding_window_width": 4}, {}, ["sliding_window_width: 5"]),
        ({"norm": "rmsnorm"}, {"mlp_type": "regular"}, ["rms_norm_epsilon of 1e-12"]),
    ],
)
def test_what_gpt_neox_computed_otherwise_is_told(
    changes: dict[str, Any], saved: dict[str, Any], words: list[str]
) -> None:
    told = list(differing_computations(build(**changes), saved, ranks=1, has_attention_bias=True))
    assert len(told) == len(words)
    assert all(word in sentence for word, sentence in zip(words, told, strict=True))
