"""Against the published configurations and the list of keys they may contain."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path
from typing import Any

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.load import read_ymls
from tests.unit.neox_arguments.minimal import MINIMAL

REFUSED = "not supported"
OWN_DEFAULTS = {"launcher", "git_hash", "log_dir"}
"""Keys whose default differs here on purpose, or depends on the checkout; their descriptions say so."""


def default_of(text: str) -> Any:
    if text.startswith("("):
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def reference_rows(reference: Path) -> list[dict[str, str]]:
    with (reference / "config_keys.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_key_of_existing_configs_is_known(reference: Path) -> None:
    assert {row["key"] for row in reference_rows(reference)} <= set(NeoXArgs.model_fields)


def test_keys_of_our_own_are_few(reference: Path) -> None:
    known = {row["key"] for row in reference_rows(reference)}
    ours = set(NeoXArgs.model_fields) - known
    assert ours == {
        *("load_if_exists", "strict_merge"),
        *("head_dim", "use_bias_in_attn_output", "rope_scaling", "qk_layernorm_scope", "norm_position"),
    }


def test_every_key_is_accepted_with_its_default(reference: Path) -> None:
    defaults = {row["key"]: default_of(row["default"]) for row in reference_rows(reference)}
    NeoXArgs.from_dict({**{key: value for key, value in defaults.items() if key not in OWN_DEFAULTS}, **MINIMAL})


def test_defaults_are_those_of_existing_configs(reference: Path) -> None:
    for row in reference_rows(reference):
        key, default = row["key"], default_of(row["default"])
        # 1 accumulation step is what the batch sizes give when nothing else is known.
        if key not in OWN_DEFAULTS and key not in ("gradient_accumulation_steps", "prompt_end"):
            ours = NeoXArgs.model_fields[key].default
            assert ours == default, key


def completed(name: str, zoo: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A published file with what it is meant to be combined with, on machines of its size, and with its own paths taken out."""
    config = dict(zoo[name])
    if "num_layers" not in config:
        config = {**zoo["configs/125M.yml"], **config}
    if "train_iters" not in config:
        config = {**zoo["configs/llama/train_config.yml"], **config}
    if name == "configs/gmlp_small.yml":
        config["optimizer"]["params"]["eps"] = 1e-8  # "1.0e_8" in the published file
    config.pop("hostfile", None)
    config.pop("global_num_gpus", None)
    return {**config, "load_if_exists": True}


def test_every_published_config_is_built_or_refused_for_a_missing_feature(reference: Path) -> None:
    zoo = json.loads((reference / "model_zoo.json").read_text())
    outcome: dict[str, list[str]] = {}
    for name in zoo:
        try:
            NeoXArgs.from_dict(completed(name, zoo), world_size=96)
            outcome[name] = []
        except ConfigError as error:
            outcome[name] = list(error.problems)
    unexplained = {name: [text for text in texts if REFUSED not in text] for name, texts in outcome.items()}
    assert not {name: texts for name, texts in unexplained.items() if texts}
    must_build = [name for name in zoo if name.startswith(("configs/pythia/", "configs/llama/", "configs/llama2/"))]
    must_build += ["configs/20B.yml", "configs/125M.yml", "configs/local_setup.yml", "configs/bf16_125M.yml"]
    assert [name for name in must_build if outcome[name]] == []


def test_the_configs_of_the_oracle_models_load(oracle: Path) -> None:
    files = sorted(oracle.glob("models/*/config.yml"))
    assert files
    for file in files:
        assert NeoXArgs.from_values(read_ymls([str(file)])).num_layers > 0
