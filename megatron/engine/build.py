"""From layer specs to a training engine: our own, or DeepSpeed's pipeline engine for `pipe_parallel_size` >= 1, its plain engine for 0.

DeepSpeed is imported when one of its engines is built: a run without it does not wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from megatron.engine.grid import Grid
from megatron.engine.model_loss import fuses_head
from megatron.engine.partition import parameter_counter, partition_layers
from megatron.engine.protocol import Engine, Objective, StepShape
from megatron.engine.settings import engine_settings
from megatron.errors import ConfigError
from megatron.model.compiled import check_compiler, compile_blocks
from megatron.model.kept_inputs import KeptInputs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import DTYPES, BuildContext, LayerSpec
from megatron.mpu.groups import SINGLE, ProcessGroups
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
    if args.compile:
        check_compiler(device)
    context = BuildContext(groups.tensor, DTYPES[args.precision], device, context_group=groups.context)
    shape = StepShape(args.gradient_accumulation_steps, args.seq_length)
    recomputation = _recomputation(args, groups)
    is_fused = fuses_head(args, objective)
    if args.pipe_parallel_size == 0:
        model = SequentialModel(specs, context, seed=args.seed, **recomputation)
        if args.compile:
            compile_blocks(model)
        if not args.deepspeed:
            from megatron.engine.native.build import build_native_engine

            return build_native_engine(
                args, model, fuses_head=is_fused, objective=objective, groups=groups, device=device, shape=shape
            )
        from megatron.engine.deepspeed_engine import SequentialEngine

        library_engine = _initialize(args, model, mpu=Grid(groups))
        return SequentialEngine(
            library_engine, fuses_head=is_fused, objective=objective, groups=groups, device=device, shape=shape
        )
    from megatron.engine.pipeline import PipelineEngine
    from megatron.engine.stage import BatchLoss, StageModule

    bounds = partition_layers(
        specs, groups.pipe.size, method=args.pipe_partition_method, count_parameters=parameter_counter(context)
    )
    stage = StageModule(
        specs,
        bounds,
        context,
        groups=groups,
        loss=BatchLoss(objective, fuses_head=is_fused),
        seed=args.seed,
        **recomputation,
    )
    if args.compile:
        compile_blocks(stage)
    library_engine = _initialize(args, stage, mpu=None)
    return PipelineEngine(library_engine, objective=objective, groups=groups, device=device, shape=shape)


def _recomputation(args: NeoXArgs, groups: ProcessGroups) -> dict[str, Any]:
    """What a model is told about the recomputation of blocks."""
    recomputes_blocks = args.checkpoint_activations and args.recompute_granularity == "full"
    # Under sequence parallelism the tensor ranks have different parts of the hidden states already.
    is_divided = args.partition_activations and not args.sequence_parallel
    kept_inputs = KeptInputs(groups.tensor if is_divided else SINGLE, on_host=args.checkpoint_in_cpu)
    return {
        "checkpoint_num_layers": args.checkpoint_num_layers if recomputes_blocks else 0,
        "kept_inputs": kept_inputs,
    }


def _initialize(args: NeoXArgs, model: nn.Module, *, mpu: Grid | None) -> Any:
    """DeepSpeed's engine around the model, with our optimizer; a pipeline brings its own `mpu`."""
    from megatron.engine.library import deepspeed

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
