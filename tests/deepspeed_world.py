"""Worlds of forked ranks that run training engines, and the plain torch run they are compared with.

DeepSpeed and torch's compiler, which recomputation imports, are imported here, once, in the parent: ranks are then forked in no time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch._dynamo  # would take every rank that recomputes a second
from torch import Tensor, nn

os.environ.setdefault("TORCH_EXTENSIONS_DIR", os.path.join(tempfile.gettempdir(), "deepy-neox-tests-torch-extensions"))

import megatron.engine.deepspeed_engine
import megatron.engine.pipeline  # noqa: F401  with it DeepSpeed, which an engine would import when it is built
from megatron.data.cut_sequence import cut_sequence
from megatron.engine.build import build_engine
from megatron.engine.protocol import Engine, StepResult
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext, LayerSpec
from megatron.mpu.groups import SINGLE, ProcessGroups, build_process_groups
from megatron.mpu.shard import shard_of
from megatron.mpu.topology import Topology
from megatron.neox_arguments import NeoXArgs
from megatron.optim.build import build_optimizer
from megatron.optim.lr_schedules import learning_rate
from megatron.training.objectives.next_token import NextTokenObjective
from tests.toy_model import (
    PADDED,
    TOY_CONFIG,
    VOCABULARY,
    ToyObjective,
    global_batch,
    micro_batches,
    toy_specs,
)

ROWS = 8
CLIPPING = 0.5
# Smaller than every parameter: all are divided among the ranks, fetched for use, released, and updated in several sub-groups.
DIVIDE_ALL = {
    "stage": 3,
    "stage3_param_persistence_threshold": 0,
    "stage3_prefetch_bucket_size": 100,
    "stage3_max_live_parameters": 100,
    "sub_group_size": 300,
}
Full = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """How to run a small model. pipe = 0 is the sequential engine; gpt = the real model instead of the toy."""

    pipe: int = 0
    data: int = 1
    tensor: int = 1
    zero: int = 0
    accumulation: int = 1
    tied: bool = False
    gpt: bool = False
    precision: str = "fp32"
    overrides: dict[str, Any] = field(default_factory=dict)
    context: int = 1

    @property
    def world_size(self) -> int:
        return max(self.pipe, 1) * self.data * self.context * self.tensor

    def arguments(self) -> NeoXArgs:
        """The configuration; only what the engine reads differs from the defaults."""
        return NeoXArgs.from_dict(
            {
                **TOY_CONFIG,
                "global_num_gpus": self.world_size,
                "pipe_parallel_size": self.pipe,
                "model_parallel_size": self.tensor,
                "context_parallel_size": self.context,
                "train_micro_batch_size_per_gpu": ROWS // (self.data * self.accumulation),
                "gradient_accumulation_steps": self.accumulation,
                "precision": self.precision,
                "zero_optimization": {"stage": self.zero},
                "optimizer": {"type": "Adam", "params": {"lr": 0.02, "betas": [0.9, 0.95], "eps": 1e-8}},
                "weight_decay": 0.1,
                "gradient_clipping": CLIPPING,
                "init_method_std": 0.3,
                "output_layer_init_method": "normal",
                "no_weight_tying": not self.tied,
                "lr_decay_style": "cosine",
                "warmup": 0.2,
                "seed": 7,
                **self.overrides,
            }
        )

    def specs(self) -> list[LayerSpec]:
        """The layers of the model."""
        if self.gpt:
            return build_layer_specs(self.arguments(), vocab_size=VOCABULARY, padded_vocab_size=PADDED)
        return toy_specs(tied=self.tied)


@dataclass
class Engines:
    """An engine with all that a test needs to drive it."""

    case: Case
    args: NeoXArgs
    groups: ProcessGroups
    engine: Engine

    def step(self, number: int) -> StepResult:
        """Train on the global batch of step `number`."""
        return self.engine.train_step(self.batches(number), lr=learning_rate(self.args, number))

    def steps(self, begin: int, end: int) -> list[StepResult]:
        """Train on the steps [begin, end)."""
        return [self.step(number) for number in range(begin, end)]

    def batches(self, number: int) -> list[Any] | None:
        """This rank's micro-batches of a step, None where it needs none."""
        if not self.engine.reads_data:
            return None
        data = self.groups.data
        whole = micro_batches(global_batch(number, ROWS), count=self.case.accumulation, rank=data.rank, ranks=data.size)
        return [cut_sequence(batch, self.groups.context) for batch in whole]


def start_engine(case: Case) -> Engines:
    """Build the case's engine on every rank of a world of its size."""
    topology = Topology(pipe=max(case.pipe, 1), data=case.data, tensor=case.tensor, context=case.context)
    groups = build_process_groups(topology)
    args = case.arguments()
    # What a run minimises: with it the head and the loss are one operation.
    objective = (
        NextTokenObjective(group=groups.tensor, vocab_size=VOCABULARY) if case.gpt else ToyObjective(groups.tensor)
    )
    engine = build_engine(args, specs=case.specs(), objective=objective, groups=groups, device="cpu")
    return Engines(case, args, groups, engine)


@dataclass(frozen=True)
class Reference:
    """What one process computes with plain torch: losses, norms before clipping, the state after each step, a final evaluation."""

    losses: list[float]
    norms: list[float]
    states: list[Full]
    evaluation: tuple[float, float]


def reference_run(case: Case, steps: int) -> Reference:
    """The steps of `case` in fp32 on one process, the whole global batch at once, without DeepSpeed."""
    args = case.arguments()
    model = SequentialModel(case.specs(), BuildContext(), seed=args.seed)
    optimizer = build_optimizer(args, model.parameters())
    objective = ToyObjective(SINGLE)
    losses, norms, states = [], [], []
    for step in range(steps):
        batch = global_batch(step, ROWS)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args, step)
        loss = objective.loss_sum(model(batch.tokens, batch.position_ids), batch) / objective.weight(batch)
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), args.gradient_clipping or float("inf")).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        states.append(_reference_state(model, optimizer))
    with torch.no_grad():
        batch = global_batch(steps, ROWS)
        evaluation = float(objective.loss_sum(model(batch.tokens, batch.position_ids), batch))
    return Reference(losses, norms, states, (evaluation, float(objective.weight(batch))))


def _reference_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Full:
    state = {}
    for parameter in model.parameters():
        info = shard_of(parameter)
        rows = slice(None, info.valid_rows)
        sources = {"weight": parameter.detach(), **optimizer.state[parameter]}
        for key in ("weight", "exp_avg", "exp_avg_sq"):
            state[f"{info.name}/{key}"] = sources[key][rows].clone()
    return state


Pieces = dict[str, tuple[tuple[int, ...], list[tuple[tuple[int, ...], Any]]]]


def own_pieces(engine: Engine, *, for_saving: bool) -> Pieces:
    """What a rank returns of its state: arrays, which unlike tensors are sent to the parent by value."""
    return {
        name: (full.shape, [(piece.offsets, piece.tensor.numpy().copy()) for piece in full.pieces])
        for name, full in engine.state_tensors(for_saving=for_saving).items()
    }


def assemble(of_ranks: Sequence[Pieces]) -> tuple[Full, Full]:
    """(full tensors, how often each of their elements was given) from the pieces of all ranks."""
    tensors: Full = {}
    counts: Full = {}
    for pieces in of_ranks:
        for name, (shape, parts) in pieces.items():
            full = tensors.setdefault(name, torch.full(shape, float("nan")))
            count = counts.setdefault(name, torch.zeros(shape))
            for offsets, values in parts:
                where = tuple(slice(o, o + n) for o, n in zip(offsets, values.shape, strict=True))
                full[where] = torch.from_numpy(values)
                count[where] += 1
    return tensors, counts


def fill_state(engine: Engine, state: Full, scalars: dict[str, float | int]) -> None:
    """Write full tensors and scalars into an engine of any layout."""
    for name, full in engine.state_tensors().items():
        assert full.shape == tuple(state[name].shape), name
        for piece in full.pieces:
            where = tuple(slice(o, o + n) for o, n in zip(piece.offsets, piece.tensor.shape, strict=True))
            piece.tensor.copy_(state[name][where])
    engine.load_scalars(scalars)
    engine.after_load()


def assert_close(state: Full, expected: Full) -> None:
    """Both states are equal, but for rounding in fp32."""
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        if name.endswith("query_key_value.bias/weight"):
            continue  # softmax is blind to the keys' bias: its gradient is rounding noise, which Adam makes into whole steps
        torch.testing.assert_close(
            state[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
