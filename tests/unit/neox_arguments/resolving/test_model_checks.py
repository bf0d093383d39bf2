"""Keys of the architecture that newer open models need: what follows when they are left out, and which combinations are refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import parse_yaml
from tests.unit.neox_arguments.minimal import MINIMAL, build, problem, problems

LLAMA3 = {
    "type": "llama3",
    "factor": 8,
    "low_freq_factor": 1,
    "high_freq_factor": 4,
    "original_max_position_embeddings": 8192,
}
YARN = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 4096}


def without(section: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}


def test_heads_share_out_the_width_unless_their_size_is_given() -> None:
    assert build().head_dim == 16
    assert build(head_dim=24).head_dim == 24
    assert build(hidden_size=66, head_dim=16).head_dim == 16


def test_a_given_head_size_decides_which_rotations_are_possible() -> None:
    assert '"rotary_pct" is 0.5, "head_dim" is 6: 3 of the 6 channels' in problem(
        pos_emb="rotary", rotary_pct=0.5, head_dim=6
    )
    assert build(pos_emb="rotary", hidden_size=66, head_dim=16).head_dim == 16


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_attention_output_has_a_bias_where_queries_keys_and_values_have(has_bias: bool) -> None:
    assert build(use_bias_in_attn_linear=has_bias).use_bias_in_attn_output is has_bias
    assert build(use_bias_in_attn_linear=True, use_bias_in_attn_output=False).use_bias_in_attn_linear is True


ILLEGAL: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": 66}, "set hidden_size to 64 or 68, or num_attention_heads to 3 or 6, or give head_dim"),
    ({"qk_layernorm_scope": "all_heads"}, "set use_qk_layernorm to true"),
    (
        {"qk_layernorm_scope": "all_heads", "use_qk_layernorm": True, "norm": "scalenorm"},
        "by layernorm or rmsnorm only; set qk_layernorm_scope to head",
    ),
    ({"norm_position": "post", "gpt_j_residual": True}, "set gpt_j_residual to false"),
    ({"norm_position": "behind"}, "choose one of pre, post"),
    ({"sliding_window_width": 0}, "must be at least 1"),
    ({"rope_scaling": LLAMA3, "pos_emb": "learned"}, "set pos_emb to rotary"),
    ({"rope_scaling": "llama3"}, "expected keys and values"),
    ({"rope_scaling": {"factor": 2}}, 'it needs the key "type"; choose one of linear, llama3, yarn'),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2}}, "Hugging Face calls it rope_type"),
    ({"rope_scaling": {"type": "lama3"}}, 'choose one of linear, llama3, yarn (did you mean "llama3"?)'),
    ({"rope_scaling": {"type": ["yarn"]}}, "choose one of linear, llama3, yarn"),
    ({"rope_scaling": {**LLAMA3, "low_freq_facter": 1}}, 'has no such key (did you mean "low_freq_factor"?)'),
    ({"rope_scaling": {"type": "linear", "factor": 2, "mscale": 1}}, 'type "linear" has no such key; it has factor'),
    (
        {"rope_scaling": without(LLAMA3, "factor", "high_freq_factor")},
        '"rope_scaling.type" is "llama3": it also needs factor, high_freq_factor',
    ),
    (
        {"rope_scaling": {"type": "linear", "factor": 0.5}},
        '"rope_scaling.factor" is 0.5: expected a number of at least 1',
    ),
    ({"rope_scaling": {"type": "linear", "factor": True}}, "expected a number of at least 1"),
    (
        {"rope_scaling": {**LLAMA3, "low_freq_factor": "low"}},
        '"rope_scaling.low_freq_factor" is "low": expected a number',
    ),
    ({"rope_scaling": {**YARN, "original_max_position_embeddings": 10.5}}, "expected a whole number above 0"),
    (
        {"rope_scaling": {**LLAMA3, "low_freq_factor": 4}},
        "low_freq_factor (4) must be smaller than high_freq_factor (4)",
    ),
    ({"rope_scaling": {**YARN, "beta_fast": 0.5}}, '"rope_scaling.beta_fast" is 0.5: beta_slow (1) must be smaller'),
    ({"rope_scaling": YARN, "rotary_emb_base": 1}, "yarn needs a rotary_emb_base above 1"),
]


@pytest.mark.parametrize(("changes", "reason"), ILLEGAL)
def test_illegal_architectures_are_refused_with_the_way_out(changes: dict[str, Any], reason: str) -> None:
    assert reason in problem(**{"pos_emb": "rotary", **changes})


def test_every_mistake_in_a_scaling_is_told_at_once_with_its_place() -> None:
    text = "".join(f"{key}: {value}\n" for key, value in {**MINIMAL, "pos_emb": "rotary"}.items())
    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_values(
            parse_yaml(f"{text}rope_scaling: {{type: yarn, factor: 0, bata_fast: 9}}\n", source="a.yml")
        )
    sentences = [message.splitlines()[0] for message in caught.value.problems]
    assert [sentence.partition(" (a.yml:8:")[0] for sentence in sentences] == [
        '"rope_scaling.bata_fast"',
        '"rope_scaling.type" is "yarn"',
        '"rope_scaling.factor" is 0',
    ]


@pytest.mark.parametrize(
    "section", [{"type": "linear", "factor": "2e0"}, LLAMA3, YARN, {**YARN, "attention_factor": 1}]
)
def test_complete_scalings_are_accepted(section: dict[str, Any]) -> None:
    assert build(pos_emb="rotary", rope_scaling=section).rope_scaling["type"] == section["type"]


def test_several_mistakes_do_not_hide_each_other() -> None:
    found = problems(rope_scaling={"type": "linear", "factor": 0}, norm_position="post", gpt_j_residual=True)
    assert len(found) == 3, found  # and learned positions have nothing to scale


def test_checking_a_scaling_does_not_import_torch() -> None:
    config = {**MINIMAL, "pos_emb": "rotary", "rope_scaling": LLAMA3}
    code = f"import sys; from megatron.neox_arguments import NeoXArgs; NeoXArgs.from_dict({config}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
