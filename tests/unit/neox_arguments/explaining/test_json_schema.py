"""The schema against the loader: editors accept what runs, and mark what would be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.json_schema import SECTION, build_schema
from megatron.neox_arguments.explaining.section_docs import describe_key
from megatron.neox_arguments.keys.sections import CHECKED, CLOSED, SECTIONS, wrong_section_values
from megatron.neox_arguments.keys.types import read_numbers_within
from megatron.neox_arguments.reading.legacy_rules import RULES
from megatron.neox_arguments.reading.load import parse_yaml
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.read import read_draft
from megatron.neox_arguments.resolving.unsupported import RUNTIME
from tests.conftest import REPOSITORY
from tests.unit.neox_arguments.yaml_1_2 import read_as_editor

SCHEMA = build_schema()
VALIDATOR = Draft7Validator(SCHEMA)
CONFIGS = sorted((REPOSITORY / "configs").rglob("*.yml"))


def complaints(config: Any) -> list[str]:
    """The paths of the values that an editor marks."""
    return [".".join(map(str, error.absolute_path)) for error in VALIDATOR.iter_errors(config)]


def test_the_schema_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


def test_the_reader_of_these_tests_reads_as_editors_do() -> None:
    text = "{a: 1e-4, b: yes, c: 0x10, d: True, e: 1_000, f: }"
    assert read_as_editor(text) == {"a": 1e-4, "b": "yes", "c": 16, "d": True, "e": "1_000", "f": None}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(REPOSITORY / "configs")))
def test_shipped_configs_have_no_complaints(file: Path) -> None:
    assert complaints(read_as_editor(file.read_text())) == []


def test_published_configs_have_no_complaints_but_one(reference: Path) -> None:
    zoo = json.loads((reference / "model_zoo.json").read_text())
    found = {name: complaints(config) for name, config in zoo.items()}
    assert {name: paths for name, paths in found.items() if paths} == {
        "configs/gmlp_small.yml": ["optimizer.params.eps"],  # "1.0e_8" in the published file
    }


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("num_layer: 12", ""),
        ("num_layers: twelve", "num_layers"),
        ("num_layers: 0", "num_layers"),
        ("num_layers: 1.5", "num_layers"),
        ("num_layers: true", "num_layers"),
        ("num-layers: [4]", "num-layers"),
        ("rotary_pct: 1.5", "rotary_pct"),
        ("rotary_pct: 25%", "rotary_pct"),
        ("precision: fp8", "precision"),
        ("norm: rmsnrom", "norm"),
        ("gpt_j_residual: maybe", "gpt_j_residual"),
        ("train_data_paths: data/a", "train_data_paths"),
        ("optimizer: Adam", "optimizer"),
        ("optimizer: {type: Adan}", "optimizer.type"),
        ("optimizer: {lr: 1e-4}", "optimizer"),
        ("optimizer: {params: {momentum: 0.9}}", "optimizer.params"),
        ("optimizer: {params: {betas: [0.9]}}", "optimizer.params.betas"),
        ("zero_optimization: {stage: 4}", "zero_optimization.stage"),
        ("zero_optimization: {overlap_com: true}", "zero_optimization"),
        ("zero_optimization: {offload_optimizer: {device: gpu}}", "zero_optimization.offload_optimizer.device"),
        ("fp16: {enabled: 'true'}", "fp16.enabled"),
        ("rope_scaling: {type: lama3}", "rope_scaling.type"),
        ("attention_config: [[[global], many]]", "attention_config.0"),
        ("attention_config: [[[globl], all]]", "attention_config.0"),
        ("do_train: true", "do_train"),
    ],
)
def test_mistakes_are_marked(text: str, path: str) -> None:
    assert complaints(read_as_editor(text)) == [path]


@pytest.mark.parametrize(
    "text",
    [
        "num-layers: 4",
        "train_iters: 320_000",
        "train_batch_size: '64'",
        "norm: null",
        "norm:",
        "gpt_j_residual: yes",
        "wandb_run_name: 5",
        "optimizer: {type: AdamW, params: {lr: 1e-4, betas: [0.9, 0.95]}}",
        "optimizer: {type: Lion, params: {momentum: 0.9}}",
        "attention_config: [[[global, flash], 6]]",
        "attention_config: [global, flash]",
        "checkpoint_factor: 1.5",
        "weight_server_port: [6000, 6001]",
        "model_parallel_size: 0",
        "data_impl: lazy",
        "max-position-embeddings: 2048",
        "deepspeed_extra_args: {anything: [1]}",
    ],
)
def test_what_the_loader_takes_is_not_marked(text: str) -> None:
    assert complaints(read_as_editor(text)) == []
    assert parse_yaml(text, source="a.yml").values


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**40),
    st.floats(-2, 1e6, allow_nan=False),
    st.sampled_from(["", "1", "0", " 7 ", "1e-4", "5e8", "2.0", "-1", "1.5", ".5", "x", "1k", "0.1.2", "e5", "nan"]),
    st.sampled_from(["true", "Yes", "off", "TRUE", "maybe", "none", "Adam", "adamw", "fp32", "cosine", "layernorm"]),
    st.sampled_from(sorted({name for key in NeoXArgs.model_fields for name in describe_key(key).allowed.split(", ")})),
)
VALUES = st.one_of(ATOMS, st.lists(ATOMS, max_size=3), st.dictionaries(st.just("enabled"), st.booleans(), max_size=1))
KEYS = [
    key
    for key in NeoXArgs.model_fields
    if key not in RUNTIME and key != "attention_config" and describe_key(key).type not in (SECTION, "anything")
]


@settings(max_examples=400)
@given(st.sampled_from(KEYS), VALUES)
@example("weight_server_port", ["6000", 1.5])
@example("optimizer_type", "AdamW")
@example("checkpoint_factor", 0)
def test_keys_take_the_same_values_in_editors_and_in_the_loader(key: str, value: Any) -> None:
    problems = read_draft(NeoXArgs, ConfigValues({key: value})).problems
    is_older = not isinstance(value, bool) and key in RULES and value in RULES[key].older_values
    if is_older or is_out_of_range(value, problems):
        problems = []
    assert bool(complaints({key: value})) == bool(problems), problems


def is_out_of_range(value: Any, problems: list[str]) -> bool:
    """Whether text spells a number that is too large or small, which a schema cannot tell."""
    return isinstance(value, str) and any("must be" in problem for problem in problems)


PLACES = [
    (section, key)
    for section in CHECKED
    for key in SECTIONS[section].model_fields
    if describe_key(f"{section}.{key}").type != SECTION
]


@settings(max_examples=400)
@given(st.sampled_from(PLACES), VALUES)
def test_keys_of_sections_take_the_same_values_in_editors_and_in_the_loader(place: tuple[str, str], value: Any) -> None:
    section, key = place
    reasons = [reason for _, reason in wrong_section_values(section, read_numbers_within({key: value}))]
    if is_out_of_range(value, reasons):
        reasons = []
    assert bool(complaints({section: {key: value}})) == bool(reasons), reasons


def test_defaults_are_legal() -> None:
    for key, schema in SCHEMA["properties"].items():
        if "default" in schema:
            assert complaints({key: schema["default"]}) == [], key


def test_editors_offer_one_spelling_and_no_older_or_runtime_keys() -> None:
    offered = {
        key
        for key, schema in SCHEMA["properties"].items()
        if "deprecationMessage" not in schema and "doNotSuggest" not in schema
    }
    assert not [key for key in offered if "-" in key]
    assert not offered & {
        *RUNTIME,
        *(key for key in RULES if not RULES[key].remains),
        "batch_size",
        "clip_grad",
        "rank",
    }
    assert {"num_layers", "optimizer", "rope_scaling", "batch_size"} - offered == {"batch_size"}


def test_both_spellings_are_checked_alike() -> None:
    assert complaints({"num-layers": 4, "train-batch_size": 8}) == []
    assert complaints({"num-layers": "x", "train-batch_size": 0}) == ["num-layers", "train-batch_size"]
    assert complaints({"num--layers": 4}) == [""]


def test_older_keys_are_marked_with_what_to_write() -> None:
    assert complaints({"save_interval": 1000}) == []
    assert "checkpoint_factor" in SCHEMA["properties"]["save_interval"]["deprecationMessage"]
    assert SCHEMA["properties"]["clip_grad"]["deprecationMessage"] == "Older spelling of gradient_clipping."


def test_keys_that_are_not_built_say_so() -> None:
    assert SCHEMA["properties"]["z_loss"]["description"].startswith("Not built yet: the z-loss.")
    positions = SCHEMA["properties"]["pos_emb"]
    assert positions["enumDescriptions"][0] == "built"
    states = dict(zip(positions["enum"], positions["enumDescriptions"], strict=True))
    assert states["rpe"] == "not built yet"


def test_completing_a_section_does_not_write_out_its_defaults() -> None:
    for key in SECTIONS:
        section = SCHEMA["properties"].get(key, {})
        assert not [name for name, schema in section.get("properties", {}).items() if "default" in schema]


def test_editors_name_the_unknown_key_of_a_section() -> None:
    # yaml-language-server shows an errorMessage in place of "Property x is not allowed."
    for section in CLOSED:
        schema = SCHEMA
        for key in section.split("."):
            schema = schema["properties"][key]
        assert schema["additionalProperties"] is False
        assert "errorMessage" not in schema
