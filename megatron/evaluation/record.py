"""What is written down of an evaluation: the results as lm-eval has them, and everything they depend on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import torch

from megatron.checkpointing.saving.source_version import source_version
from megatron.environment import COMMAND_VARIABLE
from megatron.evaluation.evaluate import Evaluation
from megatron.evaluation.settings import EvaluationSettings
from megatron.initialize import World
from megatron.monitor.devices import device_name
from megatron.neox_arguments import NeoXArgs

PACKAGES = ("lm_eval", "datasets", "transformers", "tokenizers", "numpy")
FORMAT = 1


def record(
    args: NeoXArgs,
    settings: EvaluationSettings,
    world: World,
    evaluation: Evaluation,
    *,
    model: Mapping[str, Any],
    date: datetime,
) -> dict[str, Any]:
    """The content of a file of results. model: what `identify` says; date: when the evaluation began.

    The entries of lm-eval keep its names (`results`, `groups`, `configs`, `versions`, `n-shot`, `n-samples`, ...).
    """
    return {
        "format": FORMAT,
        **evaluation.results,
        "config": conditions(settings),
        "model": dict(model),
        "layout": {
            "processes": args.global_num_gpus,
            "pipeline": world.groups.pipe.size,
            "tensor": world.groups.tensor.size,
            "replicas": world.groups.replicas.size,
        },
        "hardware": {"device": device_name(world.device), "machine": platform.machine()},
        "precision": args.precision,
        "software": software(),
        "configuration": configuration(args),
        "command": os.environ.get(COMMAND_VARIABLE) or shlex.join(sys.argv),
        "date": date.astimezone().isoformat(timespec="seconds"),
        "seconds": round(evaluation.seconds, 1),
    }


def conditions(settings: EvaluationSettings) -> dict[str, Any]:
    """How the tasks were run, under the names that lm-eval gives to most of it."""
    return {
        "model": "megatron",
        "tasks": list(settings.tasks),
        "include_path": settings.include_path,
        "num_fewshot": settings.num_fewshot,
        "limit": settings.limit,
        "batch_size": settings.batch_size,
        "bootstrap_iters": settings.bootstrap_iterations,
        "random_seed": 0,
        "numpy_seed": settings.seed,
        "torch_seed": settings.seed,
        "fewshot_seed": settings.seed,
    }


def software() -> dict[str, Any]:
    """Versions of what took part; commit: of our own source, None where git does not know it."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if _is_installed(name)}
    return {"source": source_version(), "python": platform.python_version(), "torch": torch.__version__, **versions}


def configuration(args: NeoXArgs) -> dict[str, Any]:
    """Every key that has a value, and where those that are not defaults come from."""
    values = {key: value for key, value in args.to_dict().items() if value is not None}
    return {"values": values, "origins": dict(args.origins())}


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
