"""A configuration made comparable: the same one for two runs on one machine's CPU whose numbers must agree, and its plain one-process twin.

What is no property of a layout is replaced: precision, since only fp32 tells a mistake from rounding; data and tokenizer, which may not be
here; everything that a run writes to or reads from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.values import ConfigValues, Origin

ORIGIN = Origin("parity")
"""Where every changed value says that it comes from."""

EPS = 1e-3
"""Adam's eps. Smaller than gradients of tiny models, so that a gradient of the wrong size changes the weights; larger than rounding noise,
which an eps near zero would turn into steps of full length."""

HANG_SECONDS = 30.0

_ELSEWHERE = (
    *("load", "load_if_exists", "iteration", "finetune", "no_load_optim", "allow_data_change", "verify_checkpoint"),
    *("override_lr_scheduler", "use_checkpoint_lr_scheduler", "checkpoint_validation_with_forward_pass"),
    *("no_save_optim", "async_save", "keep_last_n_checkpoints", "extra_save_iters", "checkpoint_scale"),
    *("tensorboard_dir", "use_wandb", "use_comet", "tensorboard", "csv_monitor", "wandb"),
    *("flops_profiler", "comms_logger", "wall_clock_breakdown", "dump_state"),
    *("hostfile", "include", "exclude", "num_nodes", "master_addr", "master_port", "launcher"),
    *("vocab_file", "merge_file", "eod_token", "padded_vocab_size"),
    *("exit_interval", "exit_duration_minutes", "max_restarts", "loss_spike", "checkpoint_factor", "step_timeout"),
    *("fp16", "bf16", "loss_scale", "dynamic_loss_scale", "loss_scale_window", "hysteresis", "min_scale"),
    *("fp32_allreduce", "communication_data_type", "data_types"),
    *(
        "fp8",
        "fp8_format",
        "fp8_wgrad",
        "te_columnparallel",
        "te_rowparallel",
        "te_layernorm_mlp",
        "te_mha",
        "te_fp8_format",
    ),
)
"""Keys that have their defaults in both runs."""

MORE_ROWS = 517
"""Rows of a model that has more than its tokenizer has tokens: the character-level one has 512."""

_PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class MadeUp:
    """Prefixes of generated datasets in characters, and of the labels of each."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


def comparable(values: ConfigValues, data: MadeUp) -> ConfigValues:
    """`values` in fp32 on generated data; sizes and layout stay. What changed has the origin "parity"."""
    values, _ = modernise(values)
    given = {key for key, value in values.values.items() if value is not None}
    changes = {
        **dict.fromkeys(given.intersection(_ELSEWHERE)),
        "user_script": "train.py",
        "precision": "fp32",
        **_norm(values),
        "optimizer.params.eps": EPS,
        "tokenizer_type": "CharLevelTokenizer",
        **dict.fromkeys(given.intersection(("vocab_size",)), MORE_ROWS),
        "num_workers": 0,
        **_data(values, data),
        "checkpoint_factor": 1,
        "step_timeout": HANG_SECONDS,
    }
    return _changed(values, changes)


def in_directory(values: ConfigValues, directory: Path) -> ConfigValues:
    """The values with logs and checkpoints in `directory`."""
    return _changed(values, {"log_dir": str(directory / "logs"), "save": str(directory / "checkpoints")})


def on_one_process(values: ConfigValues) -> ConfigValues:
    """The plainest run with the numbers of `values`: one process, no recomputation, nothing divided, and whole batches at once.

    Where batches grow, a micro-batch is a row of the layout's, which all of them are multiples of.
    """
    args = NeoXArgs.from_values(values)
    row = args.train_micro_batch_size_per_gpu * args.data_parallel_size
    micro = args.train_batch_size if args.rampup_batch_size is None else row
    given = {key for key, value in values.values.items() if value is not None}
    zero = {key for key in given if key.startswith("zero_")}
    changes = {
        **dict.fromkeys(zero),
        **dict.fromkeys(given.intersection(("pipe_partition_method", "is_pipe_parallel", "world_size"))),
        "num_gpus": 1,
        "global_num_gpus": 1,
        "pipe_parallel_size": 0,
        "model_parallel_size": 1,
        "context_parallel_size": 1,
        "sequence_parallel": False,
        "zero_optimization": {"stage": 0},
        "checkpoint_activations": False,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": args.train_batch_size // micro,
        **dict.fromkeys(given.intersection(("batch_size",)), micro),
    }
    return _changed(values, changes)


def _norm(values: ConfigValues) -> dict[str, Any]:
    """The same norm on any device."""
    norm = values.value("norm")
    return {"norm": norm.removeprefix("te_")} if isinstance(norm, str) else {}


def _data(values: ConfigValues, data: MadeUp) -> dict[str, Any]:
    """Generated data for every dataset that is named; one that is split where lists are not."""
    changes: dict[str, Any] = {}
    for key in (f"{part}{kind}_data_paths" for part in _PARTS for kind in ("", "_label")):
        paths = values.value(key)
        if paths:
            made = data.labels if "label" in key else data.texts
            changes[key] = _as_many(paths, made)
    if values.value("train_data_paths") is None:
        changes |= {"data_path": data.texts[0], "split": "80,10,10"}
    for name, section in (values.value("validation_sets") or {}).items():
        for key, made in (("paths", data.texts), ("label_paths", data.labels)):
            if isinstance(section, Mapping) and section.get(key):
                changes[f"validation_sets.{name}.{key}"] = _as_many(section[key], made)
    return changes


def _as_many(paths: Sequence[str], made: Sequence[str]) -> list[str]:
    """As many generated datasets as there are paths, the same ones again where these are more."""
    return [made[index % len(made)] for index in range(len(paths))]


def _changed(values: ConfigValues, changes: Mapping[str, Any]) -> ConfigValues:
    for key, value in changes.items():
        if values.value(key) != value:
            values = values.with_value(key.split("."), value, ORIGIN)
    return values
