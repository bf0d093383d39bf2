"""The layers of one pipeline stage, in the form DeepSpeed's pipeline engine drives.

Between stages travel the tensors of a `Stream`; inside a stage the layers pass on the stream itself. A parameter shared by layers of
several stages (tied embedding and head) exists once on each, starts from the same values, and has its gradients summed over them
in every step; only the first of them counts in the gradient norm and speaks in checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.data.batch import Batch
from megatron.engine.grid import Grid, group_of_stages
from megatron.engine.library import deepspeed
from megatron.engine.model_loss import projected_loss
from megatron.engine.protocol import Objective
from megatron.engine.scaled_loss import scaled_loss
from megatron.model.kept_inputs import AS_THEY_ARE, KeptInputs
from megatron.model.projection import Projection
from megatron.model.sequential import build_layer, run_layers
from megatron.model.spec import BuildContext, LayerSpec
from megatron.model.stream import Stream
from megatron.mpu.groups import ProcessGroups
from megatron.mpu.shard import initialize_parameters


@dataclass(frozen=True)
class Tie:
    """A parameter of which each of several stages has a copy, and the group of the processes that hold ours."""

    parameter: nn.Parameter
    group: torch.distributed.ProcessGroup


class StageModule(deepspeed.pipe.PipelineModule):  # type: ignore[misc]
    """Layers `specs[bounds[i]:bounds[i+1]]` on the processes of stage i, and the loss on those of the last.

    DeepSpeed's own constructor is not run: it would build the layers its way, make process groups we have already, and print.
    The attributes at the end of ours are those its engine reads.
    """

    def __init__(
        self,
        specs: Sequence[LayerSpec],
        bounds: Sequence[int],
        context: BuildContext,
        *,
        groups: ProcessGroups,
        loss: BatchLoss,
        seed: int,
        checkpoint_num_layers: int = 0,
        kept_inputs: KeptInputs = AS_THEY_ARE,
    ) -> None:
        nn.Module.__init__(self)
        self.specs = tuple(specs)[bounds[groups.pipe.rank] : bounds[groups.pipe.rank + 1]]
        self.is_first = groups.pipe.rank == 0
        self.is_last = groups.pipe.rank == groups.pipe.size - 1
        self.checkpoint_num_layers = checkpoint_num_layers
        self.kept_inputs = kept_inputs
        for spec in self.specs:
            self.add_module(str(spec.number), build_layer(spec, context))
        for parameter in self.parameters():
            parameter.ds_pipe_replicated = False  # type: ignore[attr-defined]
        self.loss = loss
        self.loss_tensors: tuple[Tensor, ...] = ()  # of the micro-batch that comes next, see `BatchLoss`
        self.ties = self._tie(specs, bounds, groups)
        initialize_parameters(self, seed=seed)
        self._present_to_library(groups, bounds, loss)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | Tensor:
        """The `model_inputs` on the first stage, a stream's tensors on the others -> a stream's tensors; logits on the last or, where the
        loss fuses the head, the loss."""
        specs = list(self.specs)
        stream = Stream.of_tensors(*inputs)  # with tokens in the place of hidden states on the first stage
        if self.is_first:
            embedding = self.layer(specs.pop(0).number)
            stream = stream.with_hidden(embedding(stream.hidden, stream.position_ids, None, stream.dropout_keys).hidden)
        head = specs.pop() if self.is_last else None
        stream = run_layers(
            self, specs, stream, checkpoint_num_layers=self.checkpoint_num_layers, kept_inputs=self.kept_inputs
        )
        if head is None:
            tensors: tuple[Tensor, ...] = stream.tensors()
            return tensors
        layer = self.layer(head.number)
        result: Tensor = layer(stream, self._criterion) if self.loss.fuses_head else layer(stream)
        return result

    def layer(self, number: int) -> nn.Module:
        """The layer with this number; it must be one of this stage's."""
        layer: nn.Module = self.get_submodule(str(number))
        return layer

    def mpu(self) -> Grid:
        """The grid, where DeepSpeed looks for it."""
        return self._grid

    def get_tied_weights_and_groups(self) -> list[tuple[nn.Parameter, torch.distributed.ProcessGroup]]:
        """The shared parameters of this stage whose gradients have to be summed, for DeepSpeed."""
        return [(tie.parameter, tie.group) for tie in self.ties]

    def _criterion(self, projection: Projection) -> Tensor:
        return self.loss(projection, self.loss_tensors)

    def _tie(self, specs: Sequence[LayerSpec], bounds: Sequence[int], groups: ProcessGroups) -> list[Tie]:
        """Share each tied parameter within this stage and find the other stages that hold a copy of it."""
        stage_of = {
            spec.number: stage
            for stage, (begin, end) in enumerate(pairwise(bounds))
            for spec in specs[begin:end]
        }  # fmt: skip
        families: dict[tuple[int, str], list[int]] = {}
        for spec in specs:
            if spec.tied_to is not None:
                families.setdefault((spec.tied_to, spec.tied_parameter), [spec.tied_to]).append(spec.number)
        ties = []
        for (_, path), numbers in families.items():
            stages = sorted({stage_of[number] for number in numbers})
            group = group_of_stages(groups, stages) if len(stages) > 1 else None
            local = [number for number in numbers if stage_of[number] == groups.pipe.rank]
            if not local:
                continue
            parameter = self._share(local, path)
            if group is not None:
                parameter.ds_pipe_replicated = groups.pipe.rank != stages[0]  # type: ignore[attr-defined]
                ties.append(Tie(parameter, group))
        return ties

    def _share(self, numbers: Sequence[int], path: str) -> nn.Parameter:
        """Make the layers `numbers` hold one and the same parameter at `path`."""
        owner, _, name = path.rpartition(".")
        parameter = self.layer(numbers[0]).get_parameter(path)
        for number in numbers[1:]:
            setattr(self.layer(number).get_submodule(owner), name, parameter)
        return parameter

    def _present_to_library(self, groups: ProcessGroups, bounds: Sequence[int], loss: BatchLoss) -> None:
        self._grid = Grid(groups)
        self._local_start, self._local_stop = bounds[groups.pipe.rank], bounds[groups.pipe.rank + 1]
        # A loss that is computed inside the stage is its output: DeepSpeed hooks what it does before a backward pass to that.
        self.loss_fn = None if loss.fuses_head else loss
        self.tied_comms: dict[str, Any] = {}
        self.activation_checkpoint_interval = 0
        self.activation_checkpoint_func = checkpoint
        self.dynamic_shape = False


class BatchLoss:
    """The loss of a micro-batch on the last stage, `factor` times the objective's sum.

    fuses_head: it takes the head's projection in place of logits; see `model_loss`.
    """

    def __init__(self, objective: Objective, batch_type: type[Batch] = Batch, *, fuses_head: bool = False) -> None:
        self.factor = 1.0
        self.fuses_head = fuses_head
        self._objective = objective
        self._batch_type = batch_type

    def __call__(self, output: Tensor | Projection, tensors: tuple[Tensor, ...]) -> Tensor:
        """output: logits or, with `fuses_head`, the projection; `tensors` are those of `batch_tensors`, on the model's device."""
        batch = self._batch_type(*tensors)
        if isinstance(output, Projection):
            return scaled_loss(projected_loss(self._objective, output, batch), self.factor)
        return scaled_loss(self._objective.loss_sum(output, batch), self.factor)


def batch_tensors(batch: Batch) -> tuple[Tensor, ...]:
    """The fields of a micro-batch in the order of its constructor, as DeepSpeed carries them to the last stage; optional ones if set.

    Without the keys of dropout, of which the loss has no need.
    """
    values = (getattr(batch, field.name) for field in fields(batch) if field.name != "dropout_keys")
    return tuple(value for value in values if value is not None)


def model_inputs(batch: Batch) -> tuple[Tensor, ...]:
    """What the first stage reads of a micro-batch: the tensors of a `Stream` with tokens in the place of hidden states."""
    optional = (batch.document_ids, batch.dropout_keys)
    return batch.tokens, batch.position_ids, *(tensor for tensor in optional if tensor is not None)
