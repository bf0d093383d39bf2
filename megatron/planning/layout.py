"""How a run is laid out over devices: what decides, beside the architecture, how much memory each device needs."""

from __future__ import annotations

from dataclasses import dataclass

from megatron import text
from megatron.neox_arguments.arguments import NeoXArgs


@dataclass(frozen=True)
class Layout:
    """A grid of pipeline x data x context x tensor ranks, ZeRO, batch sizes and recomputation.

    pipeline: stages, 0 = without the pipeline engine; micro_batch: samples in one pass; accumulation: passes in one step;
    recompute: keep only the inputs of every `recompute_every` blocks (`checkpoint_activations`, `checkpoint_num_layers`).
    """

    pipeline: int = 0
    data: int = 1
    tensor: int = 1
    sequence_parallel: bool = False
    zero_stage: int = 0
    micro_batch: int = 1
    accumulation: int = 1
    recompute: bool = False
    recompute_every: int = 1
    context: int = 1

    @classmethod
    def of(cls, args: NeoXArgs) -> Layout:
        """The layout that a configuration asks for."""
        return cls(
            pipeline=args.pipe_parallel_size,
            data=args.data_parallel_size,
            tensor=args.model_parallel_size,
            sequence_parallel=args.sequence_parallel,
            zero_stage=args.zero_stage,
            micro_batch=args.train_micro_batch_size_per_gpu,
            accumulation=args.gradient_accumulation_steps,
            recompute=args.checkpoint_activations,
            recompute_every=args.checkpoint_num_layers,
            context=args.context_parallel_size,
        )

    @property
    def stages(self) -> int:
        """Pipeline stages, 1 without a pipeline."""
        return max(self.pipeline, 1)

    @property
    def replicas(self) -> int:
        """Devices with the same part of the weights, over which ZeRO divides."""
        return self.data * self.context

    @property
    def world_size(self) -> int:
        """Devices."""
        return self.stages * self.replicas * self.tensor

    def __str__(self) -> str:
        return text.grid(pipe=self.stages, data=self.data, context=self.context, tensor=self.tensor)
