"""What one process computes of a cell in fp64 with plain torch: no engine, no DeepSpeed, and clipping and Adam by their formulas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from megatron.data.batch import Batch
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext, LayerSpec
from megatron.mpu.groups import SINGLE, single_process_groups
from megatron.mpu.shard import InitMethod, set_shard, shard_of
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import padded_vocab_size
from megatron.optim.lr_schedules import learning_rate
from megatron.training.objectives.next_token import NextTokenObjective
from tests.distributed.matrix.batches import own_batches
from tests.distributed.matrix.cell import STEPS, VOCABULARY, Cell

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Reference:
    """losses and norms (before clipping) of each step; first moments after the first step, which are its clipped gradients times
    1 - beta1; weights and moments after all steps; loss sum and weight of an evaluation behind them. Padding rows are left out."""

    losses: list[float]
    norms: list[float]
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]
    evaluation: tuple[float, float]


def model_specs(args: NeoXArgs) -> list[LayerSpec]:
    """The layers of a cell, every initial weight moved a little: a bias of zero or a gain of one could be dropped unseen."""
    specs = build_layer_specs(args, vocab_size=VOCABULARY, padded_vocab_size=padded_vocab_size(args, VOCABULARY))
    return [replace(spec, build=partial(_build_with_noise, spec)) for spec in specs]


def _build_with_noise(spec: LayerSpec, context: BuildContext) -> nn.Module:
    layer = spec.build(context)
    for parameter in layer.parameters():
        info = shard_of(parameter)
        set_shard(parameter, replace(info, init=partial(_fill_with_noise, info.init)))
    return layer


def _fill_with_noise(init: InitMethod, tensor: Tensor, generator: torch.Generator) -> None:
    init(tensor, generator)
    tensor.add_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype), alpha=0.1)


def reference(cell: Cell) -> Reference:
    """The reference of a cell; cells of one model and one kind of batch share it."""
    return _compute(cell.on_one_process())


@cache
def _compute(cell: Cell) -> Reference:
    args = cell.arguments()
    model = SequentialModel(model_specs(args), BuildContext(dtype=torch.float64), seed=args.seed)
    adam = _Adam(args, model)
    objective = NextTokenObjective(group=SINGLE, vocab_size=VOCABULARY)
    losses, norms, gradients = [], [], {}
    for step in range(STEPS):
        batches = own_batches(cell, single_process_groups(), step)
        weight = sum(float(objective.weight(batch)) for batch in batches)
        total = 0.0
        for batch in batches:
            logits = _logits(model, batch)
            loss = objective.loss_sum(logits, batch) / weight
            loss.backward()
            total += float(loss.detach())
        losses.append(total)
        norms.append(adam.step(learning_rate(args, step)))
        if step == 0:
            gradients = {name: value for name, value in adam.state().items() if name.endswith("/exp_avg")}
    return Reference(losses, norms, gradients, adam.state(), _evaluate(cell, model.eval(), objective))


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch.tokens, batch.position_ids, document_ids=batch.document_ids, dropout_keys=batch.dropout_keys)


@torch.no_grad()
def _evaluate(cell: Cell, model: nn.Module, objective: NextTokenObjective) -> tuple[float, float]:
    loss = weight = 0.0
    for batch in own_batches(cell, single_process_groups(), STEPS):
        logits = _logits(model, batch)
        loss += float(objective.loss_sum(logits, batch))
        weight += float(objective.weight(batch))
    return loss, weight


class _Adam:
    """Clipping by the global norm and AdamW (Loshchilov and Hutter) as they are written in papers."""

    def __init__(self, args: NeoXArgs, model: nn.Module) -> None:
        options = args.optimizer_params
        self._betas, self._eps = options["betas"], options["eps"]
        self._decay, self._clipping = args.weight_decay, args.gradient_clipping
        self._parameters = list(model.parameters())
        self._moments = {key: [torch.zeros_like(each) for each in self._parameters] for key in MOMENTS}
        self._steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> float:
        """Move the weights, forget the gradients, and return their norm before clipping."""
        self._steps += 1
        norm = sum(float(each.grad.square().sum()) for each in self._parameters) ** 0.5
        factor = min(1.0, self._clipping / (norm + 1e-6)) if self._clipping else 1.0
        first, second = self._betas
        for parameter, mean, square in zip(self._parameters, *self._moments.values(), strict=True):
            gradient = parameter.grad * factor
            mean.mul_(first).add_(gradient, alpha=1 - first)
            square.mul_(second).add_(gradient.square(), alpha=1 - second)
            if parameter.dim() >= 2:
                parameter.mul_(1 - rate * self._decay)
            root = (square / (1 - second**self._steps)).sqrt()
            parameter.sub_(rate * (mean / (1 - first**self._steps)) / (root + self._eps))
            parameter.grad = None
        return norm

    def state(self) -> dict[str, Tensor]:
        """Weights and moments by the names an engine gives them."""
        values = {"weight": self._parameters, **self._moments}
        state = {}
        for key, tensors in values.items():
            for parameter, tensor in zip(self._parameters, tensors, strict=True):
                info = shard_of(parameter)
                state[f"{info.name}/{key}"] = tensor.detach()[: info.valid_rows].clone()
        return state
