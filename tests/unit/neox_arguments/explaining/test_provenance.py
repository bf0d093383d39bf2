from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.provenance import PROPERTIES, Provenance, trace
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls
from megatron.neox_arguments.resolving.resolve import derive_all

MODEL = """num-layers: 4
hidden_size: 64
num_attention_heads: 4
seq_length: 32
train_micro_batch_size_per_gpu: 2
train_iters: 100
save-interval: 10
activation: swiglu
optimizer:
  type: Adam
  params: {lr: 6e-4, betas: [0.9, 0.95]}
"""


def traced(key: str, directory: Path, *parts: str, words: tuple[str, ...] = ()) -> Provenance:
    """The provenance of a key in files `0.yml`, `1.yml`, ... and words of the command line; places lose the directory."""
    names = []
    for number, text in enumerate(parts):
        names.append(directory / f"{number}.yml")
        names[-1].write_text(text)
    values = apply_overrides(read_ymls([str(name) for name in names]), words)
    draft, translations, _ = derive_all(NeoXArgs, values, world_size=8, planning=True)
    return trace(key, draft, values, translations)


def rows(found: Provenance, directory: Path) -> list[tuple[str, str, Any]]:
    return [(item.place.removeprefix(f"{directory}/"), item.name, item.value) for item in found.writings]


def test_a_default_is_written_nowhere(tmp_path: Path) -> None:
    found = traced("norm", tmp_path, MODEL)
    assert (found.value, found.known, found.writings, found.rule) == ("layernorm", True, (), "")


def test_every_file_and_the_command_line_are_told_in_order(tmp_path: Path) -> None:
    parts = (MODEL, "hidden_size: 128", "# other\nhidden-size: 256")
    found = traced("hidden_size", tmp_path, *parts, words=("hidden_size=512", "hidden-size=1024"))
    assert found.value == 1024
    assert rows(found, tmp_path) == [
        ("0.yml:2:1", "hidden_size", 64),
        ("1.yml:1:1", "hidden_size", 128),
        ("2.yml:2:1", "hidden_size", 256),
        ("command line", "hidden_size", 512),
        ("command line", "hidden_size", 1024),
    ]


def test_a_value_only_the_command_line_gave_is_told_once(tmp_path: Path) -> None:
    assert rows(traced("seed", tmp_path, MODEL, words=("seed=1",)), tmp_path) == [("command line", "seed", 1)]


@pytest.mark.parametrize("key", ["lr", "optimizer.params.lr"])
def test_other_spellings_are_followed(key: str, tmp_path: Path) -> None:
    found = traced(key, tmp_path, MODEL, "lr: 1e-4", words=("optimizer.params.lr=1e-5",))
    assert found.value == 1e-5
    assert rows(found, tmp_path) == [
        ("0.yml:11:12", "optimizer.params.lr", "6e-4"),
        ("1.yml:1:1", "lr", "1e-4"),
        ("command line", "optimizer.params.lr", "1e-5"),
    ]
    assert found.rule == ""


def test_older_names_are_followed(tmp_path: Path) -> None:
    found = traced("checkpoint_factor", tmp_path, MODEL)
    assert found.value == 10
    assert rows(found, tmp_path) == [("0.yml:7:1", "save_interval", 10)]
    assert found.writings[0].remark == "checkpoint_factor now; iterations between checkpoints"


def test_a_section_that_replaces_another_takes_its_keys_away(tmp_path: Path) -> None:
    found = traced("optimizer.params.betas", tmp_path, MODEL, "optimizer: {params: {lr: 1e-4}}")
    assert found.value == (0.9, 0.999)
    assert [(item.name, item.remark) for item in found.writings] == [
        ("optimizer.params.betas", ""),
        ("optimizer", "replaces the whole section, which is without it"),
    ]


@pytest.mark.parametrize(
    ("word", "expected", "row"),
    [
        ("optimizer={params: {lr: 1e-4}}", 1e-4, ("optimizer.params.lr", "1e-4", "")),
        ("optimizer.params={lr: 1e-4}", 1e-4, ("optimizer.params.lr", "1e-4", "")),
        ("optimizer={type: Adam}", 1e-3, ("optimizer", None, "replaces the whole section, which is without it")),
        ("optimizer.params={}", 1e-3, ("optimizer.params", None, "replaces the whole section, which is without it")),
        ("optimizer=null", 1e-3, ("optimizer", None, "null: not given, earlier values do not count")),
        (
            "optimizer.params.lr=null",
            1e-3,
            ("optimizer.params.lr", None, "null: not given, earlier values do not count"),
        ),
    ],
)
def test_what_the_command_line_does_to_a_section_is_told_last(
    word: str, expected: float, row: tuple[str, Any, str], tmp_path: Path
) -> None:
    found = traced("lr", tmp_path, MODEL, words=("optimizer.params.lr=2e-4", word))
    last = found.writings[-1]
    assert (found.value, last.place, (last.name, last.value, last.remark)) == (expected, "command line", row)
    assert [item.value for item in found.writings[:-1]] == ["6e-4", "2e-4"]


def test_null_in_a_later_file_is_told(tmp_path: Path) -> None:
    found = traced("train_iters", tmp_path, MODEL, "train_iters: null")
    assert found.value is None
    assert rows(found, tmp_path) == [("0.yml:6:1", "train_iters", 100), ("1.yml:1:1", "train_iters", None)]


def test_older_names_on_the_command_line_are_told(tmp_path: Path) -> None:
    found = traced("warmup", tmp_path, MODEL, "warmup: 0.05", words=("warmup_iters=50",))
    assert found.value == 0.5
    assert rows(found, tmp_path) == [("1.yml:1:1", "warmup", 0.05), ("command line", "warmup_iters", 50)]


@pytest.mark.parametrize(("key", "expected"), [("batch_size", 2), ("optimizer.params.weight_decay", 0.1)])
def test_another_spelling_has_the_same_value(key: str, expected: float, tmp_path: Path) -> None:
    assert traced(key, tmp_path, MODEL, "weight_decay: 0.1").value == expected


def test_words_for_keys_of_a_section_are_told_with_the_section(tmp_path: Path) -> None:
    found = traced("optimizer", tmp_path, MODEL, words=("optimizer.params.lr=2e-4",))
    assert rows(found, tmp_path)[1:] == [("command line", "optimizer.params.lr", "2e-4")]


def test_a_derived_value_names_its_rule_and_what_it_was_derived_from(tmp_path: Path) -> None:
    found = traced("train_batch_size", tmp_path, MODEL, words=("model_parallel_size=2",))
    assert found.value == 8
    assert "8 = 2 x 1 x 4" in found.rule
    inputs = {item.key: (item.value, item.place.rpartition("/")[2]) for item in found.inputs}
    assert inputs == {
        "train_micro_batch_size_per_gpu": (2, "0.yml:5:1"),
        "gradient_accumulation_steps": (1, ""),
        "data_parallel_size": (4, ""),
    }


def test_keys_that_a_rule_names_are_its_inputs(tmp_path: Path) -> None:
    found = traced("max_position_embeddings", tmp_path, MODEL)
    assert (found.value, found.rule) == (32, "equals seq_length")
    assert [(item.key, item.value) for item in found.inputs] == [("seq_length", 32)]


@pytest.mark.parametrize(
    ("name", "value", "inputs"),
    [
        ("mlp_width", 85, {"hidden_size": 64, "gated_activation": True, "mlp_multiple_of": 1}),
        ("data_parallel_size", 8, {"global_num_gpus": 8, "pipeline_stages": 1, "model_parallel_size": 1}),
        ("lr_decay_steps", 100, {"train_iters": 100, "lr_decay_iters": None}),
        ("warmup_steps", 1.0, {"warmup": 0.01, "lr_decay_steps": 100}),
        ("norm_epsilon", 1e-5, {"norm": "layernorm"}),
    ],
)
def test_computed_values_are_explained_like_keys(name: str, value: Any, inputs: dict[str, Any], tmp_path: Path) -> None:
    found = traced(name, tmp_path, MODEL)
    assert found.value == value
    assert found.rule
    assert inputs.items() <= {item.key: item.value for item in found.inputs}.items()


def test_every_computed_value_can_be_explained() -> None:
    computed = {name for name, _ in inspect.getmembers(NeoXArgs, lambda member: isinstance(member, property))}
    assert {name for name in computed if not name.startswith(("model_", "_"))} == set(PROPERTIES)
    for _, inputs in PROPERTIES.values():
        assert set(inputs) <= {*NeoXArgs.model_fields, *PROPERTIES}


def test_a_value_that_cannot_be_known_is_said_to_be_unknown(tmp_path: Path) -> None:
    assert not traced("mlp_width", tmp_path, "seed: 1").known
    assert not traced("hidden_size", tmp_path, MODEL.replace("64", "many")).known
    assert traced("seed", tmp_path, "seed: 1").value == 1
