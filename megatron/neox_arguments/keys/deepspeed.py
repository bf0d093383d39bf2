"""Settings handed to DeepSpeed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import DERIVED, Group, Integer, Number, Section


class DeepSpeedArgs(Group):
    """Half-precision sections, communication and diagnostics of the engine. Dictionaries use DeepSpeed's own keys."""

    deepspeed: bool = True
    """Train through DeepSpeed. false is our own engine for data, context and tensor ranks (pipe_parallel_size 0), ZeRO 0 and 1, fp32 and
    bfloat16: weights, gradients and optimizer states in flat memory, gradients added up in fp32 as they come and reduced in fp32 beside the
    backward pass, one pass of the optimizer with the clipping in it. The same numbers and checkpoints: a run may change from one to the
    other. Measured on one CPU thread with 71 million parameters and 16 tokens, where a step is gradients, norm and update above all: 0.57
    of the time of DeepSpeed in bfloat16 and 0.74 in fp32, and three quarters of its memory at the peak. Of zero_optimization it reads
    stage, reduce_bucket_size and overlap_comm."""

    fp16: Section | None = None
    """fp16 training. `enabled: true` is another way to write precision: fp16; the other keys describe the loss scale, as loss_scale,
    loss_scale_window, hysteresis and min_scale do. Files that say `type: bfloat16` here mean precision: bfloat16. Default: enabled as
    precision says."""

    bf16: Section | None = None
    """bfloat16 training. `enabled: true` is another way to write precision: bfloat16. Default: enabled as precision says."""

    loss_scale: Number | None = Field(None, ge=0)
    """Fixed factor of the loss in fp16 training; 0 adjusts it while training. Default: fp16.loss_scale, else adjusted."""

    dynamic_loss_scale: bool = Field(DERIVED)
    """Whether the loss scale adjusts itself. Default: true in fp16 training without a fixed loss_scale."""

    loss_scale_window: Number = Field(1000.0, gt=0)
    """Iterations without overflow after which a dynamic loss scale doubles. Another way to write fp16.loss_scale_window."""

    hysteresis: Integer = Field(2, ge=1)
    """Overflows in a row before a dynamic loss scale halves. Another way to write fp16.hysteresis."""

    min_scale: Number = Field(1.0, gt=0)
    """Smallest dynamic loss scale. Another way to write fp16.min_loss_scale."""

    amp: Section | None = None
    """Mixed precision by NVIDIA's apex."""

    data_types: Section | None = None
    """Number format in which gradients accumulate over micro-batches: {grad_accum_dtype: fp32 | bf16 | fp16}. Existing GPT-NeoX takes
    the model's format. Default: fp32."""

    fp32_allreduce: bool = False
    """Reduce gradients over data-parallel ranks in fp32 whatever the precision: twice the traffic, no rounding in between."""

    communication_data_type: Literal["fp32", "fp16", "bf16"] | None = None
    """Format in which gradients are reduced; half precision halves the traffic and rounds. Default: the precision's, with
    fp32_allreduce, and without DeepSpeed, fp32."""

    prescale_gradients: bool = False
    """Divide gradients before reducing them instead of after, against overflow in fp16 with many ranks."""

    gradient_predivide_factor: Number = Field(1.0, gt=0)
    """With prescale_gradients: divide by this before the reduction and by the rest after it."""

    sparse_gradients: bool = False
    """Reduce embedding gradients in a sparse format."""

    scheduler: Section | None = None
    """A learning-rate schedule of DeepSpeed's; here the lr_* keys describe it."""

    activation_checkpointing: Section | None = None
    """DeepSpeed's recomputation settings; here checkpoint_activations and checkpoint_num_layers describe it."""

    steps_per_print: Integer = Field(10, ge=1)
    """Iterations between two status lines of DeepSpeed itself."""

    wall_clock_breakdown: bool = False
    """Let DeepSpeed time forward, backward and step and print them; synchronises the GPU, so it costs speed."""

    dump_state: bool = False
    """Let DeepSpeed print its state after initialisation."""

    flops_profiler: Section | None = None
    """DeepSpeed's report of operations and times by module, of one iteration."""

    comms_logger: Section | None = None
    """DeepSpeed's record of the sizes and times of its collective operations."""

    tensorboard: Section | None = None
    """A copy of DeepSpeed's own few metrics for TensorBoard. All metrics go to tensorboard_dir."""

    csv_monitor: Section | None = None
    """A copy of DeepSpeed's own few metrics as CSV files. All metrics are in metrics.jsonl in log_dir."""

    wandb: Section | None = None
    """A copy of DeepSpeed's own few metrics at Weights & Biases. use_wandb is for all metrics."""

    curriculum_learning: Section | None = None
    """Train on short sequences first and lengthen them, which is cheaper and steadier at the start: each step takes the first tokens of its
    samples, as many as its iteration says, and drops the rest. Evaluation takes whole samples. Default: whole samples throughout."""

    curriculum_seqlen: Integer = Field(0, ge=0)
    """Sequence length that the curriculum had reached when an existing config was saved."""

    data_efficiency: Section | None = None
    """DeepSpeed's data sampling and routing."""

    sparse_attention: Section | None = None
    """Sparse attention through DeepSpeed; here sparsity_config describes it."""

    autotuning: Section | None = None
    """DeepSpeed's search for batch size and ZeRO settings."""

    elasticity: Section | None = None
    """Batch sizes for a changing number of processes; removed from current DeepSpeed. `elastic` keeps one batch size on fewer processes."""

    compression_training: Section | None = None
    """DeepSpeed's pruning and quantisation while training."""

    checkpoint: Section | None = None
    """Settings of DeepSpeed's own checkpoints, which are not used here."""

    deepspeed_extra_args: Section | None = None
    """Further keys for the DeepSpeed config that have no key of their own here; merged into it last."""
