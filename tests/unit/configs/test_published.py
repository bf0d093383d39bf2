"""A shipped configuration file means what the one published with GPT-NeoX means, but for differences that are given with their reason."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues
from tests.shipped import (
    FILES,
    alone,
    arguments,
    read,
    read_alone,
)
from tests.unit.neox_arguments.published import corrected

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


def published_name(file: str) -> str:
    return (
        f"post-training/configs/{file.removeprefix('post_training/')}"
        if file.startswith("post_")
        else f"configs/{file}"
    )


def published_values(file: str, zoo: dict[str, Any]) -> ConfigValues:
    """The published form of a file, among its companions here."""
    published = corrected(published_name(file), zoo)
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
    ours, theirs = meaning(arguments(read_alone(file))), meaning(arguments(values))
    different = {
        key: (ours.get(key), theirs.get(key)) for key in {*ours, *theirs} if not is_same(ours.get(key), theirs.get(key))
    }
    assert {key: different.get(key) for key in JUSTIFIED.get(file, {})} == different
