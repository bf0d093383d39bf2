"""Each row of a table of settings says in both directions what it can, and refuses the rest by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from megatron.conversion.mapping.settings import (
    REQUIRED,
    Always,
    Choice,
    Fixed,
    Opposite,
    Row,
    Same,
    Table,
    Untranslatable,
    value_of,
)
from megatron.errors import CheckpointError
from tests.unit.conversion.mapping.small import SMALL

ACTIVATION = Choice("act", {"gelu": {"activation": "gelu"}, "new": {"activation": "gelu_tanh"}}, "gelu")


@pytest.mark.parametrize(
    ("row", "theirs", "ours"),
    [
        (Same("num_layers", "n_layer"), {"n_layer": 2}, {"num_layers": 2}),
        (Opposite("no_weight_tying", "tie"), {"tie": False}, {"no_weight_tying": True}),
        (Always({"norm": "layernorm"}), {}, {"norm": "layernorm"}),
        (Fixed("clip", None), {"clip": None}, {}),
        (ACTIVATION, {"act": "gelu"}, {"activation": "gelu"}),
    ],
)
def test_a_row_says_the_same_in_both_directions(row: Row, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert row.to_theirs(SMALL) == theirs
    assert row.to_ours(theirs) == ours


def test_a_value_may_follow_from_other_keys() -> None:
    row = Always(lambda config: {"num_kv_heads": config["heads"]})
    assert row.to_ours({"heads": 7}) == {"num_kv_heads": 7}


def test_missing_keys_have_the_defaults_of_transformers() -> None:
    assert value_of({}, "eps", 1e-6) == 1e-6
    assert value_of({"eps": None}, "eps", 1e-6) == 1e-6
    assert value_of({"heads": 4}, "kv", lambda config: config["heads"]) == 4
    with pytest.raises(CheckpointError, match='has no "eps"'):
        value_of({}, "eps", REQUIRED)


def test_what_a_choice_lacks_is_named() -> None:
    with pytest.raises(Untranslatable, match="no activation 'mish', only activation 'gelu' or activation 'gelu_tanh'"):
        ACTIVATION.to_theirs(replace(SMALL, activation="mish"))
    with pytest.raises(Untranslatable, match="act is 'quick', and only 'gelu', 'new'"):
        ACTIVATION.to_ours({"act": "quick"})


def test_a_fixed_key_refuses_other_values() -> None:
    with pytest.raises(Untranslatable, match=r"clip is 8\.0, and only None"):
        Fixed("clip", None).to_ours({"clip": 8.0})


def test_all_problems_of_a_table_are_named_at_once() -> None:
    table = Table((ACTIVATION, Fixed("clip", None)))
    with pytest.raises(Untranslatable, match=r"act is 'quick'.*clip is 8.*swing is 3, a setting that is not known"):
        table.to_ours({"act": "quick", "clip": 8.0, "swing": 3})


def test_keys_that_are_off_or_change_nothing_may_be_there() -> None:
    table = Table((ACTIVATION,), ignored=frozenset({"note"}))
    config = {"act": "new", "note": "x", "bos_token_id": 1, "swing": None, "swung": False, "swings": []}
    assert table.to_ours(config) == {"activation": "gelu_tanh"}
