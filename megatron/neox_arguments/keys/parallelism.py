"""How the model is cut over processes: pipeline stages, context and tensor ranks and, with what is left, data-parallel copies."""

from __future__ import annotations

from pydantic import Field

from megatron.neox_arguments.keys.types import DERIVED, Group, Integer


class ParallelismArgs(Group):
    """Sizes of the pipeline x data x context x tensor grid."""

    pipe_parallel_size: Integer = Field(0, ge=0)
    """Stages the layers are divided into. 0 runs all layers in one process without the pipeline engine; 1 is the pipeline engine with
    a single stage. Both give the same numbers: use 0 unless you need more than one stage. Larger values save memory per process at
    the price of idle time (a bubble of about (stages - 1) / gradient_accumulation_steps)."""

    model_parallel_size: Integer = Field(1, ge=1)
    """Tensor-parallel ranks: each weight matrix is cut into this many parts. They exchange activations twice a layer, so keep them
    inside one machine. Must divide num_attention_heads, num_kv_heads and the MLP width."""

    context_parallel_size: Integer = Field(1, ge=1)
    """Ranks that share the sequences of a batch: each has an equal part of the tokens, and so of the activations. Around the core of
    attention they trade their parts for a share of the heads, so that it sees whole sequences: the same numbers. Gradients and ZeRO
    treat them as data-parallel copies. For sequences whose activations do not fit one device; where they do, data-parallel copies
    communicate less. Must divide seq_length and num_attention_heads / model_parallel_size."""

    pipe_partition_method: str = "type:transformer|mlp"
    """How layers are given to pipeline stages: `type:REGEX` balances the number of layers whose name matches, `parameters` balances
    the number of parameters, `uniform` the number of layers of any kind. Change it when the slowest or fullest stage holds the others
    up."""

    world_size: Integer = Field(DERIVED, ge=1)
    """Number of processes; saved configs hold it. Default: global_num_gpus."""

    is_pipe_parallel: bool = False
    """Whether the pipeline engine runs. Whatever is written, it follows from pipe_parallel_size; saved configs hold it."""

    sequence_parallel: bool = False
    """Split activations between tensor-parallel regions along the sequence over the tensor ranks: the same numbers, with activation
    memory of norms and dropouts divided by model_parallel_size. Worth switching on with any model_parallel_size above 1. Needs
    seq_length divisible by context_parallel_size x model_parallel_size."""

    @property
    def pipeline_stages(self) -> int:
        """Number of pipeline stages, 1 when there is no pipeline."""
        return max(self.pipe_parallel_size, 1)
