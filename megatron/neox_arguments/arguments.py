"""`NeoXArgs`: every key of a configuration in one immutable object, and the ways to make one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr

from megatron.errors import ConfigError
from megatron.neox_arguments.derive import derive_lr_decay_steps
from megatron.neox_arguments.keys.checkpoints import CheckpointArgs
from megatron.neox_arguments.keys.deepspeed import DeepSpeedArgs
from megatron.neox_arguments.keys.evaluation import EvaluationArgs
from megatron.neox_arguments.keys.generation import GenerationArgs
from megatron.neox_arguments.keys.guards import GuardArgs
from megatron.neox_arguments.keys.model import ModelArgs
from megatron.neox_arguments.keys.moe import MoEArgs
from megatron.neox_arguments.keys.monitoring import MonitoringArgs
from megatron.neox_arguments.keys.optimizer import OptimizerArgs
from megatron.neox_arguments.keys.parallelism import ParallelismArgs
from megatron.neox_arguments.keys.post_training import PostTrainingArgs
from megatron.neox_arguments.keys.runner import RunnerArgs
from megatron.neox_arguments.keys.tokenizer import TokenizerArgs
from megatron.neox_arguments.keys.training import TrainingArgs
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls, split_arguments
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.origins import Origins
from megatron.neox_arguments.resolving.resolve import Resolution, resolve


class NeoXArgs(
    ParallelismArgs,
    ModelArgs,
    MoEArgs,
    TrainingArgs,
    OptimizerArgs,
    PostTrainingArgs,
    MonitoringArgs,
    GuardArgs,
    CheckpointArgs,
    GenerationArgs,
    EvaluationArgs,
    TokenizerArgs,
    RunnerArgs,
    DeepSpeedArgs,
):
    """The whole configuration, derived and checked. Make one with `from_values` or `from_dict`; it never changes afterwards."""

    _origins: Origins = PrivateAttr(default=Origins())

    @classmethod
    def from_values(
        cls, values: ConfigValues, *, world_size: int | Callable[[NeoXArgs], int] | None = None, planning: bool = False
    ) -> Self:
        """Derive and check everything. Raises one ConfigError that holds every problem.

        `world_size` is the number of processes, or a function that finds it from the typed but not yet derived arguments (its
        NeoXError joins the other problems). Default: global_num_gpus, else 1. `planning`: see resolve.
        """
        resolution = cls.resolution(values, world_size=world_size, planning=planning)
        return cls.from_resolved(resolution.values, origins=resolution.origins)

    @classmethod
    def resolution(
        cls, values: ConfigValues, *, world_size: int | Callable[[NeoXArgs], int] | None = None, planning: bool = False
    ) -> Resolution:
        """As `from_values`, with the rule behind each derived value, remarks, and what is asked for but not built."""
        return resolve(cls, values, world_size=world_size, planning=planning)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, world_size: int | None = None, planning: bool = False) -> Self:
        """As `from_values`, from a plain dictionary."""
        return cls.from_values(ConfigValues.from_dict(config), world_size=world_size, planning=planning)

    @classmethod
    def from_resolved(cls, values: Mapping[str, Any], *, origins: Mapping[str, str] | None = None) -> Self:
        """Arguments from values that were derived before: types are read, nothing is derived or checked again. origins: see Origins."""
        args = cls.model_validate({key: value for key, value in values.items() if value is not None})
        args._origins = Origins(origins or {})
        return args

    @classmethod
    def consume_neox_args(cls, argv: Sequence[str] | None = None) -> NeoXArgs:
        """The arguments of a worker: `--neox-args TEXT` (or `@FILE` with it) as a launcher passes them, else config files and `key=value` words.

        The second form serves `torchrun train.py CONFIG...`: the number of processes is $WORLD_SIZE. A `--local_rank=N` is ignored.
        """
        words = [word for word in (sys.argv[1:] if argv is None else argv) if not word.startswith("--local")]
        if "--neox-args" in words[:-1]:
            from megatron.neox_arguments.transport import decode  # it decodes to this class

            text = words[words.index("--neox-args") + 1]
            return decode(Path(text[1:]).read_text() if text.startswith("@") else text)
        unknown = [word for word in words if word.startswith("-")]
        if unknown or not words:
            raise ConfigError([f"expected config files or --neox-args, found {' '.join(unknown) or 'nothing'}"])
        files, assignments = split_arguments(words)
        values = apply_overrides(read_ymls(files), assignments)
        return cls.from_values(values, world_size=int(os.environ.get("WORLD_SIZE", "1")))

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value."""
        return {key: getattr(self, key) for key in type(self).model_fields}

    def origins(self) -> Mapping[str, str]:
        """Where values that are not defaults come from, by key as far as it is known (see Origins)."""
        return self._origins.places

    def with_train_iters(self, train_iters: int) -> Self:
        """A copy whose train_epochs have been counted in iterations."""
        return self.model_copy(update={"train_iters": train_iters})

    def with_learning_rates(
        self, *, lr: float, lr_decay_style: str, lr_decay_iters: int, min_lr: float, warmup: float
    ) -> Self:
        """A copy with these learning rates, whatever its own keys said of them."""
        optimizer = {**self.optimizer, "params": {**self.optimizer.get("params", {}), "lr": lr}}
        keys = {"lr": lr, "lr_decay_style": lr_decay_style, "min_lr": min_lr, "warmup": warmup, "optimizer": optimizer}
        keys |= {"lr_decay_iters": lr_decay_iters, "lr_decay_fraction": None}
        changed = self.model_copy(update=keys)
        changed._origins = Origins({**self.origins(), **dict.fromkeys(keys, "the checkpoint that was loaded")})
        return changed

    @property
    def data_parallel_size(self) -> int:
        """Copies of the model that train on different samples."""
        return self.global_num_gpus // (self.pipeline_stages * self.context_parallel_size * self.model_parallel_size)

    @property
    def lr_decay_steps(self) -> int:
        """Iteration at which the learning rate has decayed. Raises ConfigError while train_epochs are not counted in iterations."""
        if self.train_iters is None and self.lr_decay_iters is None:
            raise ConfigError(["the length of the learning-rate decay is unknown: give train_iters or lr_decay_iters"])
        return derive_lr_decay_steps(
            self.train_iters or 0, decay_iters=self.lr_decay_iters, decay_fraction=self.lr_decay_fraction
        )

    @property
    def warmup_steps(self) -> float:
        """Iterations of warm-up, not rounded."""
        return self.warmup * self.lr_decay_steps
