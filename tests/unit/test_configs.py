"""The shipped configuration files: complete or combined with what they name, honest about what is not built, and as published.

A file starts with comments that people and these tests read:

    # yaml-language-server: $schema=PATH           the schema beside the files
    # One to three lines: what it is, its source.
    # N parameters with a vocabulary of V.         models: rows of the embedding, padding included
    # Combine with: FILE...                        the files beside it on a command line
    # Not built yet: FEATURE; FEATURE.             features the program refuses so far

A command line names the file with the model first.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.load import read_ymls
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.parameters import count_parameters
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs"
FILES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yml"))
SETUP = "local_setup.yml"
HEADINGS = (
    *("model", "initialisation", "layout", "batch", "objective", "optimizer", "precision", "data"),
    *("evaluation and checkpoints", "checkpoints", "launcher", "logging"),
)
SCHEMA = "# yaml-language-server: $schema="
PARAMETERS = re.compile(r"# ([\d,]+) parameters with a vocabulary of ([\d,]+)\.")
COMBINE, NOT_BUILT = "# Combine with: ", "# Not built yet: "


@dataclass(frozen=True)
class Header:
    """The comments at the head of a file."""

    schema: str
    prose: tuple[str, ...]
    parameters: int | None
    vocabulary: int | None
    companions: tuple[str, ...]
    not_built: tuple[str, ...]


@cache
def header_of(file: str) -> Header:
    schema, *lines = (CONFIGS / file).read_text().split("\n\n")[0].splitlines()
    lines = [line for line in lines if line.startswith("#")]
    counts = [match for match in map(PARAMETERS.fullmatch, lines) if match]
    combine = [line.removeprefix(COMBINE) for line in lines if line.startswith(COMBINE)]
    not_built = [line.removeprefix(NOT_BUILT) for line in lines if line.startswith(NOT_BUILT)]
    prose = [line for line in lines if not PARAMETERS.fullmatch(line) and not line.startswith((COMBINE, NOT_BUILT))]
    assert max(len(counts), len(combine), len(not_built)) <= 1
    return Header(
        schema=schema,
        prose=tuple(prose),
        parameters=int(counts[0][1].replace(",", "")) if counts else None,
        vocabulary=int(counts[0][2].replace(",", "")) if counts else None,
        companions=tuple(name.removeprefix("configs/") for name in " ".join(combine).split()),
        not_built=tuple(not_built[0].rstrip(".").split("; ")) if not_built else (),
    )


@cache
def read(*files: str) -> ConfigValues:
    return read_ymls([str(CONFIGS / file) for file in files])


def is_model(file: str) -> bool:
    return "num_layers" in read(file).values


def command_line(file: str) -> list[str]:
    """A file among its companions, the model first."""
    companions = header_of(file).companions
    return [file, *companions] if is_model(file) else [*companions, file]


def alone(file: str) -> list[str]:
    """What a file needs to be a configuration at all: nothing for a model, its companions for a piece."""
    return [file] if is_model(file) else command_line(file)


def one_copy(values: ConfigValues) -> int:
    """Processes of one copy of the model."""
    return max(values.values.get("pipe_parallel_size", 0), 1) * values.values.get("model_parallel_size", 1)


def arguments(values: ConfigValues) -> NeoXArgs:
    return NeoXArgs.from_values(values, world_size=one_copy(values), planning=True)


def features_not_built(values: ConfigValues) -> set[str]:
    return {
        missing.feature for missing in NeoXArgs.resolution(values, world_size=one_copy(values), planning=True).not_built
    }


MODELS = [file for file in FILES if is_model(file)]
WITH_OWN_DATA = {file for file in MODELS if any(key.endswith("data_paths") for key in read(file).values)}
COMPLETE = [file for file in MODELS if "train_iters" in read(file).values and file not in WITH_OWN_DATA]


# Every file


@pytest.mark.parametrize("file", FILES)
def test_a_file_starts_with_the_schema_and_says_what_it_is(file: str) -> None:
    header = header_of(file)
    assert header.schema.startswith(SCHEMA)
    schema = (CONFIGS / file).parent / header.schema.removeprefix(SCHEMA)
    assert schema.resolve() == CONFIGS / "neox_arguments.schema.json"
    assert 1 <= len(header.prose) <= 3


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_written_in_the_common_style(file: str) -> None:
    lines = (CONFIGS / file).read_text().splitlines()
    assert [
        line for line in lines if "\t" in line or line != line.rstrip() or (len(line) > 140 and NOT_BUILT not in line)
    ] == []
    headings = [line.strip()[2:] for line in lines if line.strip().removeprefix("# ").partition(";")[0] in HEADINGS]
    places = [HEADINGS.index(heading.partition(";")[0]) for heading in headings]
    assert places == sorted(set(places))
    assert (lines[-1] == "}") == (file == "125M-json.yml")  # the one file that shows the other notation


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_no_key_of_the_past(file: str) -> None:
    assert modernise(read(file))[1] == ()


@pytest.mark.parametrize("file", FILES)
def test_a_file_resolves_with_the_files_it_names(file: str) -> None:
    arguments(read(*alone(file)))
    assert arguments(read(*command_line(file))).train_iters


@pytest.mark.parametrize("file", FILES)
def test_a_file_says_which_of_its_features_are_not_built(file: str) -> None:
    assert set(header_of(file).not_built) == features_not_built(read(*alone(file)))


@pytest.mark.parametrize("file", COMPLETE)
def test_a_complete_file_merges_with_the_local_setup(file: str) -> None:
    values = read(file, SETUP)
    assert arguments(values).data_path
    if not features_not_built(values):  # then a run is accepted as well
        assert NeoXArgs.from_values(values, world_size=one_copy(values)).train_iters


# Numbers of parameters

PUBLISHED = {
    "20B.yml": 20_554_567_680,
    "pythia/14M.yml": 14_067_712,
    "pythia/31M.yml": 30_494_720,
    "pythia/70M.yml": 70_426_624,
    "pythia/160M.yml": 162_322_944,
    "pythia/410M.yml": 405_334_016,
    "pythia/1B.yml": 1_011_781_632,
    "pythia/1-4B.yml": 1_414_647_808,
    "pythia/2-8B.yml": 2_775_208_960,
    "pythia/6-9B.yml": 6_857_302_016,
    "pythia/12B.yml": 11_846_072_320,
    "finetuning_configs/6-9B.yml": 6_857_302_016,
    "llama/7B.yml": 6_738_415_616,
    "llama/13B.yml": 13_015_864_320,
    "llama/30B.yml": 32_528_943_616,
    "llama/65B.yml": 65_285_660_672,
    "llama2/7B.yml": 6_738_415_616,
    "llama2/13B.yml": 13_015_864_320,
    "llama2/70B.yml": 68_976_648_192,
    "llama2/codellama_7B.yml": 6_738_546_688,
    "llama2/codellama_34B.yml": 33_743_970_304,
    "llemma/7B.yml": 6_738_546_688,
    "llemma/34B.yml": 33_743_970_304,
    "mistral/7B.yml": 7_241_732_096,
    "llama3/8B.yml": 8_030_261_248,
    "llama3/70B.yml": 70_553_706_496,
    "llama3.1/8B.yml": 8_030_261_248,
    "llama3.1/70B.yml": 70_553_706_496,
    "llama3.1/405B.yml": 405_853_388_800,
    "llama3.2/1B.yml": 1_235_814_400,
    "llama3.2/3B.yml": 3_212_749_824,
    "qwen2.5/0.5B.yml": 494_032_768,
    "qwen2.5/1.5B.yml": 1_543_714_304,
    "qwen2.5/3B.yml": 3_085_938_688,
    "qwen2.5/7B.yml": 7_615_616_512,
    "qwen2.5/14B.yml": 14_770_033_664,
    "qwen2.5/32B.yml": 32_763_876_352,
    "qwen2.5/72B.yml": 72_706_203_648,
    "qwen3/0.6B.yml": 596_049_920,
    "qwen3/1.7B.yml": 1_720_574_976,
    "qwen3/4B.yml": 4_022_468_096,
    "qwen3/8B.yml": 8_190_735_360,
    "qwen3/14B.yml": 14_768_307_200,
    "qwen3/32B.yml": 32_762_123_264,
    "olmo2/1B.yml": 1_484_916_736,
    "olmo2/7B.yml": 7_298_617_344,
    "olmo2/13B.yml": 13_716_198_400,
    "smollm2/135M.yml": 134_515_008,
    "smollm2/360M.yml": 361_821_120,
    "smollm2/1.7B.yml": 1_711_376_384,
    "mamba/mamba-130M.yml": 129_135_360,
    "mamba/mamba-370M.yml": 371_516_416,
    "mamba/mamba-790M.yml": 793_204_224,
    "mamba/mamba-1.4B.yml": 1_372_178_432,
    "mamba/mamba-2.8B.yml": 2_768_345_600,
}
"""Parameters of the released weights."""

RELEASED_ROWS = dict.fromkeys((file for file in PUBLISHED if file.startswith("mamba/")), 50_280)
"""Rows of a released embedding that is padded less than ours."""


@pytest.mark.parametrize("file", MODELS)
def test_the_head_of_a_model_tells_its_parameters(file: str) -> None:
    header = header_of(file)
    assert header.vocabulary is not None
    assert count_parameters(arguments(read(file)), vocab_size=header.vocabulary) == header.parameters


@pytest.mark.parametrize("file", PUBLISHED)
def test_a_named_model_has_the_parameters_of_the_released_one(file: str) -> None:
    rows = RELEASED_ROWS.get(file, header_of(file).vocabulary or 0)
    assert count_parameters(arguments(read(file)), vocab_size=rows) == PUBLISHED[file]


# Against the published GPT-NeoX files

WITHOUT_INFLUENCE = {
    # places and names
    *(
        "data_path",
        "vocab_file",
        "merge_file",
        "save",
        "load",
        "load_if_exists",
        "log_dir",
        "tensorboard_dir",
        "git_hash",
    ),
    *(f"{part}_data_paths" for part in ("train", "valid", "test", "valid_label", "valid_reward")),
    *(
        "memory_profiling_path",
        "sample_input_file",
        "sample_output_file",
        "comment",
        "launcher",
        "deepspeed_slurm",
        "hostfile",
    ),
    *("use_wandb", "wandb_group", "wandb_team", "wandb_project", "wandb_host", "use_comet", "comet_project"),
    *("comet_experiment_name", "comet_tags", "comet_others"),
    # speed, memory and what is printed
    *("layernorm_fusion", "rmsnorm_fusion", "rope_fusion", "bias_dropout_fusion", "use_flashattn_swiglu"),
    *("scaled_upper_triang_masked_softmax_fusion", "scaled_masked_softmax_fusion"),
    *("partition_activations", "synchronize_each_layer", "distributed_backend", "data_impl", "num_workers"),
    *("steps_per_print", "wall_clock_breakdown", "deepspeed_extra_args", "log_grad_norm", "override_lr_scheduler"),
    *("zero_reduce_scatter", "zero_contiguous_gradients", "zero_reduce_bucket_size", "zero_allgather_bucket_size"),
    # what another key of the comparison says
    *("intermediate_size", "mlp_multiple_of", "expansion_factor", "lr_decay_iters", "lr_decay_fraction"),
    *("fp16", "bf16", "zero_optimization", "loss_scale", "loss_scale_window", "hysteresis", "min_scale"),
}
LOSS_SCALING = {
    "loss_scale": 0,
    "initial_scale_power": 16,
    "loss_scale_window": 1000,
    "hysteresis": 2,
    "min_loss_scale": 1,
}
"""DeepSpeed's defaults."""

BIASES = "the published file leaves the key out, which gives biases that the model does not have"
WIDTH = "the published file leaves the width out, or its rounding"
NO_POSITIONS = "the published file leaves the key out, which gives a table of positions that the model does not have"
OWN_DATA = "the setup of this repository: the data and the tokenizer of `make train`"
HELD_OUT = "the published file evaluates on the documents it trains on"
JUSTIFIED: dict[str, dict[str, str]] = {
    "llama/train_config.yml": {
        "finetune": "a run could not continue after an interruption; the head of the file says how to"
    },
    "llama2/7B.yml": {"use_bias_in_mlp": BIASES},
    "llama2/13B.yml": {"use_bias_in_mlp": BIASES},
    "llama2/70B.yml": {"use_bias_in_mlp": BIASES, "rotary_emb_base": "the published file has Code Llama's"},
    "llama2/codellama_7B.yml": {"use_bias_in_mlp": BIASES, "mlp_width": WIDTH},
    "llama2/codellama_34B.yml": {"use_bias_in_mlp": BIASES, "mlp_width": WIDTH},
    "llemma/7B.yml": {"use_bias_in_mlp": BIASES, "mlp_width": WIDTH},
    "llemma/34B.yml": {"use_bias_in_mlp": BIASES, "mlp_width": WIDTH},
    "mistral/7B.yml": {
        "use_bias_in_mlp": BIASES,
        "mlp_width": WIDTH,
        "max_position_embeddings": "the released model has a quarter; rotary positions do not depend on it",
    },
    **{f"mamba/mamba-{size}.yml": {"pos_emb": NO_POSITIONS} for size in ("130M", "370M", "790M", "1.4B", "2.8B")},
    "rwkv/170M.yml": {
        "pos_emb": NO_POSITIONS,
        **dict.fromkeys(("gpt_j_residual", "rotary_pct"), "its blocks have neither attention nor rotations"),
    },
    **{name: {"tokenizer_type": OWN_DATA, "split": OWN_DATA} for name in ("local_setup.yml", "slurm_local.yml")},
    **{f"local_setup_{name}.yml": {"tokenizer_type": OWN_DATA, "split": OWN_DATA} for name in ("comet", "wandb")},
    "text_generation.yml": dict.fromkeys(
        ("num_samples", "maximum_tokens", "temperature", "top_p"), "what suits the model of `make train`"
    ),
}
"""Differences from the published files, with the reason."""

MISTAKES = {
    "configs/gmlp_small.yml": {
        "optimizer": {"type": "Adam", "params": {"lr": 6e-4, "betas": [0.9, 0.999], "eps": 1e-8}}
    }
}
"""Published values that are no configuration: eps "1.0e_8"."""


def published_name(file: str) -> str:
    return (
        f"post-training/configs/{file.removeprefix('post_training/')}"
        if file.startswith("post_")
        else f"configs/{file}"
    )


def published_values(file: str, zoo: dict[str, Any]) -> ConfigValues:
    """The published form of a file, among its companions here."""
    name = published_name(file)
    published = {**zoo[name], **MISTAKES.get(name, {})}
    merged: dict[str, Any] = {}
    for part in alone(file):
        merged |= published if part == file else read(part).values
    return ConfigValues.from_dict(merged)


def meaning(args: NeoXArgs) -> dict[str, Any]:
    """What determines the numbers of a run."""
    values = {key: value for key, value in args.to_dict().items() if key not in WITHOUT_INFLUENCE}
    values |= {"mlp_width": args.mlp_width, "zero_stage": args.zero_stage}
    if args.train_iters is not None:
        values["lr_decay_steps"] = args.lr_decay_steps
    if args.precision == "fp16":
        values |= {key: (args.fp16 or {}).get(key, default) for key, default in LOSS_SCALING.items()}
    values["data_types"] = args.data_types or {"grad_accum_dtype": "fp32"}
    return values


def is_same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-6)
    return bool(ours == theirs)


def test_every_published_file_has_its_counterpart(reference: Path) -> None:
    zoo = json.loads((reference / "model_zoo.json").read_text())
    expected = {published_name(file) for file in FILES} | {
        "configs/cpu_mock_config.yml"
    }  # ours is cpu.yml, a whole model
    assert set(zoo) <= expected


@pytest.mark.parametrize("file", FILES)
def test_a_file_means_what_the_published_one_means(file: str, reference: Path) -> None:
    zoo = json.loads((reference / "model_zoo.json").read_text())
    if published_name(file) not in zoo:
        pytest.skip("not among the published files")
    values = published_values(file, zoo)
    ours, theirs = meaning(arguments(read(*alone(file)))), meaning(arguments(values))
    different = {
        key: (ours.get(key), theirs.get(key)) for key in {*ours, *theirs} if not is_same(ours.get(key), theirs.get(key))
    }
    assert {key: different.get(key) for key in JUSTIFIED.get(file, {})} == different


# The guide

GUIDE = (CONFIGS / "README.md").read_text()


def test_the_guide_names_every_file_and_no_other() -> None:
    named = {name for name in re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.yml)`", GUIDE) if not name.startswith("configs/")}
    assert named == set(FILES)


def test_the_guide_tells_what_is_not_built() -> None:
    rows = re.findall(r"^\| (`[^|]+\.yml`) \| (.+?) \|$", GUIDE.partition("## Not built yet")[2], re.MULTILINE)
    told = {file: tuple(features.split("; ")) for files, features in rows for file in re.findall(r"`([^`]+)`", files)}
    assert told == {file: header_of(file).not_built for file in FILES if header_of(file).not_built}
