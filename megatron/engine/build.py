"""From layer specs to a training engine: DeepSpeed's pipeline engine for `pipe_parallel_size` >= 1, its plain engine for 0."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from megatron.engine.deepspeed_engine import SequentialEngine
from megatron.engine.grid import Grid
from megatron.engine.library import deepspeed
from megatron.engine.partition import partition_layers
from megatron.engine.pipeline import PipelineEngine
from megatron.engine.protocol import Engine, Objective
from megatron.engine.settings import engine_settings
from megatron.engine.stage import BatchLoss, StageModule, parameter_counter
from megatron.errors import ConfigError
from megatron.model.sequential import SequentialModel
from megatron.model.spec import DTYPES, BuildContext, LayerSpec
from megatron.mpu.groups import ProcessGroups
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.deepspeed_config import build_deepspeed_config
from megatron.optim.build import build_optimizer


def build_engine(
    args: NeoXArgs,
    *,
    specs: Sequence[LayerSpec],
    objective: Objective,
    groups: ProcessGroups,
    device: torch.device | str,
) -> Engine:
    """An `Engine` for the model of `specs`, with initial weights by name and seed; collective: all ranks call it.

    Needs an initialised torch.distributed and the variable LOCAL_RANK, as `megatron.initialize` leaves them, also for one process.
    """
    device = torch.device(device)
    if device.type != "cpu":
        os.environ["LOCAL_RANK"] = str(device.index or 0)  # DeepSpeed takes it for the number of its device
    context = BuildContext(groups.tensor, DTYPES[args.precision], device)
    checkpoint_num_layers = args.checkpoint_num_layers if args.checkpoint_activations else 0
    if args.pipe_parallel_size == 0:
        model = SequentialModel(specs, context, seed=args.seed, checkpoint_num_layers=checkpoint_num_layers)
        return SequentialEngine(
            _initialize(args, model, mpu=Grid(groups)), objective=objective, groups=groups, device=device
        )
    bounds = partition_layers(
        specs, groups.pipe.size, method=args.pipe_partition_method, count_parameters=parameter_counter(context)
    )
    stage = StageModule(
        specs,
        bounds,
        context,
        groups=groups,
        loss=BatchLoss(objective),
        seed=args.seed,
        checkpoint_num_layers=checkpoint_num_layers,
    )
    return PipelineEngine(_initialize(args, stage, mpu=None), objective=objective, groups=groups, device=device)


def _initialize(args: NeoXArgs, model: nn.Module, *, mpu: Grid | None) -> Any:
    """DeepSpeed's engine around the model, with our optimizer; a pipeline brings its own `mpu`."""
    parameters = list(model.parameters())
    if not parameters:
        raise ConfigError(
            [
                f'"pipe_partition_method" is "{args.pipe_partition_method}", which leaves a pipeline stage without any parameter: '
                'choose type:transformer|mlp, or a smaller "pipe_parallel_size"'
            ]
        )
    settings = engine_settings(build_deepspeed_config(args), parameters)
    optimizer = build_optimizer(args, parameters)
    library_engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, mpu=mpu)
    return library_engine
