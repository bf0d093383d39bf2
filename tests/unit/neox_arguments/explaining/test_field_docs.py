from __future__ import annotations

import pytest

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.field_docs import GROUP_OF, GROUPS, describe_field, describe_group


def test_every_key_has_a_group_a_type_and_a_description() -> None:
    assert set(GROUP_OF) == set(NeoXArgs.model_fields)
    for key in NeoXArgs.model_fields:
        doc = describe_field(key)
        assert doc.key == key
        assert doc.group in GROUPS
        assert doc.type
        assert doc.default
        assert doc.text.endswith(".")
        assert "\n" not in doc.text


def test_every_group_has_one_line() -> None:
    for name in GROUPS:
        assert describe_group(name).endswith(".")
        assert "\n" not in describe_group(name)


def test_a_name_that_is_no_key_has_no_description() -> None:
    with pytest.raises(KeyError):
        describe_field("nrom")


@pytest.mark.parametrize(
    ("key", "kind", "allowed", "default"),
    [
        ("gpt_j_residual", "true or false", "true, false", "false"),
        ("use_wandb", "true or false", "true, false", "no"),
        ("pipe_parallel_size", "whole number", "at least 0", "0"),
        ("rotary_pct", "number", "above 0, at most 1", "1.0"),
        ("hidden_dropout", "number", "at least 0, below 1", "0.0"),
        ("checkpoint_factor", "number", "above 0", "only extra_save_iters and the last iteration"),
        ("checkpoint_scale", "name", "linear, log", '"linear"'),
        ("lr_decay_style", "name", "constant, linear, cosine, exponential", '"linear"'),
        ("train_data_paths", "list of texts", "", "none"),
        ("train_data_weights", "list of numbers", "", "equal"),
        ("extra_save_iters", "list of whole numbers", "", "none"),
        ("weight_server_port", "whole number or list of whole numbers", "", "6000"),
        ("amp", "section of keys and values", "", "none"),
        ("num_layers", "whole number", "at least 1, at most 100000", "none: every model needs it"),
        ("num_kv_heads", "whole number", "at least 1", "num_attention_heads"),
    ],
)
def test_types_ranges_and_defaults_are_told_in_words(key: str, kind: str, allowed: str, default: str) -> None:
    doc = describe_field(key)
    assert (doc.type, doc.allowed, doc.default) == (kind, allowed, default)


def test_names_that_are_not_built_yet_are_told_apart() -> None:
    assert describe_field("norm").allowed.startswith("layernorm, rmsnorm, ")
    assert describe_field("attention_config").allowed.startswith("global, flash")
    for key, planned in (("pos_emb", "rpe"), ("attention_config", "mamba")):
        before, _, after = describe_field(key).allowed.partition(" (not built yet: ")
        assert (planned in after) != (planned in before.split(", "))
