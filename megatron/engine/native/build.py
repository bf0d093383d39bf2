"""From a model to the engine without DeepSpeed."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from megatron.engine.native.bucket import build_buckets
from megatron.engine.native.engine import NativeEngine
from megatron.engine.native.exchange import Exchange
from megatron.engine.native.update import Optimizer
from megatron.engine.protocol import Objective, StepShape
from megatron.mpu.groups import ProcessGroups
from megatron.neox_arguments import NeoXArgs
from megatron.optim.build import build_optimizer
from megatron.planning.memory.flat import bucket_limit

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_native_engine(
    args: NeoXArgs,
    model: nn.Module,
    *,
    fuses_head: bool,
    objective: Objective,
    groups: ProcessGroups,
    device: torch.device,
    shape: StepShape,
) -> NativeEngine:
    """The engine around `model`, whose parameters move into flat buffers (they stay the same objects)."""
    optimizer = build_optimizer(args, model.parameters())
    divides = args.zero_stage > 0 and groups.replicas.size > 1
    limit = bucket_limit(args.zero_optimization, replicas=groups.replicas.size)
    bucket_groups = [
        build_buckets(options["params"], limit=limit, replicas=groups.replicas, divides=divides)
        for options in optimizer.param_groups
    ]
    return NativeEngine(
        model,
        list(chain.from_iterable(bucket_groups)),
        Optimizer(optimizer, bucket_groups, clipping=args.gradient_clipping),
        Exchange(groups.replicas, divides, FORMATS[args.communication_data_type or "fp32"]),
        overlaps=args.zero_optimization.get("overlap_comm") is not False,
        fuses_head=fuses_head,
        objective=objective,
        groups=groups,
        device=device,
        shape=shape,
    )
