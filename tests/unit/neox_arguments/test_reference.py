"""Against the published configurations and the list of keys they may contain."""

from __future__ import annotations

import ast
import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import read_ymls
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import memory_by_stage
from megatron.planning.model.parameters import count_parameters
from tests.unit.neox_arguments.minimal import MINIMAL
from tests.unit.neox_arguments.published import complete_published
from tests.unit.neox_arguments.sizes import VOCABULARY, has_the_size_of_its_name, size_in

REFUSED = "is not supported yet"
_PREFERENCES = {"pairwise data", "data other than plain text"}
NOT_BUILT: dict[str, set[str]] = {
    "configs/125M-dmoe.yml": {"mixture of experts"},
    "configs/bnb_125M.yml": {"an 8-bit optimizer"},
    "configs/gmlp_small.yml": {'attention type "gmlp"'},
    **{f"configs/mamba/mamba-{size}.yml": {"Mamba", 'attention type "mamba"'} for size in ("130M", "370M", "790M")},
    **{f"configs/mamba/mamba-{size}.yml": {"Mamba", 'attention type "mamba"'} for size in ("1.4B", "2.8B")},
    "configs/prof.yml": {"memory profiling", "profiling"},
    "configs/rwkv/170M.yml": {'attention type "rwkv"'},
    "configs/sparse.yml": {"sparse attention", 'attention type "local"'},
    **{
        f"post-training/configs/{name}.yml": {
            *_PREFERENCES,
            *("training from preferences and rewards", 'training objective "dpo"'),
        }
        for name in ("benchmarking/llama-13b-dpo", "benchmarking/mistral-dpo", "llama3-8b-dpo")
    },
    "post-training/configs/llama3-8b-kto.yml": {
        *("reward data", 'training objective "kto"'),
    },
    "post-training/configs/llama3-8b-reinforce.yml": {
        *("data other than plain text", "online data"),
        *("training from preferences and rewards", 'training objective "reinforce"'),
    },
    "post-training/configs/llama3-8b-rm.yml": {*_PREFERENCES, 'training objective "rm"'},
}
"""What published configurations ask for and this release lacks; all others are built."""

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
        *("compile", "sdpa_backend", "fused_linear_cross_entropy"),
        *("check_desync", "diagnose_nan", "loss_spike", "step_timeout", "exit_duration_minutes"),
        *("max_restarts", "elastic", "node_timeout", "launcher_args", "forward_environment"),
        *("async_save", "verify_checkpoint", "load_if_exists", "allow_data_change", "strict_merge", "eod_token"),
        *("head_dim", "use_bias_in_attn_output", "rope_scaling", "qk_layernorm_scope", "norm_position"),
        *("vocab_size", "use_bias_in_output_layer", "trust_checkpoint"),
        *("reset_attention_mask", "reset_position_ids", "context_parallel_size"),
        *("rampup_batch_size", "validation_sets", "recompute_granularity"),
        *("fp8", "fp8_format", "fp8_wgrad"),
        *("eval_tasks_interval", "eval_include_path", "eval_num_fewshot"),
        *("eval_limit", "eval_batch_size", "eval_log_samples"),
        *("stop_strings", "stop_tokens", "generation_batch_size"),
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


def published(reference: Path) -> dict[str, ConfigValues]:
    """Every published configuration, with what it is meant to be combined with."""
    zoo = json.loads((reference / "model_zoo.json").read_text())
    return {name: ConfigValues.from_dict(complete_published(name, zoo)) for name in zoo}


def test_every_published_config_loads_and_is_refused_for_missing_features_alone(reference: Path) -> None:
    missing: dict[str, set[str]] = {}
    for name, values in published(reference).items():
        not_built = NeoXArgs.resolution(values, world_size=96, planning=True).not_built
        missing[name] = {feature.feature for feature in not_built}
        if not_built:
            assert refusals(values) == len(not_built), name
        else:
            NeoXArgs.from_values(values, world_size=96)
    assert {name: features for name, features in missing.items() if features} == NOT_BUILT


def refusals(values: ConfigValues) -> int:
    """Problems of a configuration that asks for what is not built, each of which says so."""
    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_values(values, world_size=96)
    assert all(REFUSED in problem for problem in caught.value.problems), caught.value
    return len(caught.value.problems)


def test_every_published_config_can_be_planned(reference: Path) -> None:
    for name, values in published(reference).items():
        args = NeoXArgs.from_values(values, world_size=96, planning=True)
        stages = memory_by_stage(args, Layout.of(args), vocab_size=VOCABULARY)
        assert len(stages) == args.pipeline_stages
        assert all(math.isfinite(stage.total) and min(stage.weights, stage.activations) > 0 for stage in stages), name
        models = 2 if args.train_impl in ("dpo", "kto", "reinforce") else 1  # with the reference model
        parameters = models * count_parameters(args, vocab_size=VOCABULARY)
        weights = sum(stage.weights for stage in stages) * args.model_parallel_size
        # The vocabulary is padded, norms are on every tensor rank, tied embeddings on two stages.
        assert 1 <= weights / (parameters * (4 if args.precision == "fp32" else 2)) < 1.02, name


def test_a_published_config_has_the_size_in_its_name(reference: Path) -> None:
    sized = [name for name in published(reference) if size_in(name)]
    other = {name for name in sized if not has_the_size_of_its_name(name, published(reference)[name])}
    # Named after the dense model; the others leave out how their MLP width is rounded, so two thirds of it are taken.
    assert other == {
        "configs/125M-dmoe.yml",
        *("configs/llama2/codellama_7B.yml", "configs/llama2/codellama_34B.yml"),
        *("configs/llemma/7B.yml", "configs/llemma/34B.yml", "configs/mistral/7B.yml"),
    }


def test_the_configs_of_the_oracle_models_load(oracle: Path) -> None:
    files = sorted(oracle.glob("models/*/config.yml"))
    assert files
    for file in files:
        assert NeoXArgs.from_values(read_ymls([str(file)])).num_layers > 0
