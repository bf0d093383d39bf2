"""The keys inside sections: of the optimizer, of half precision, of the model, and of DeepSpeed's diagnostics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from megatron.components import ROPE_SCALINGS
from megatron.neox_arguments.keys.optimizer import OptimizerName
from megatron.neox_arguments.keys.types import DERIVED, ComponentName, Group, Integer, Number, Section, Texts

Share = Annotated[Number, Field(ge=0, lt=1)]


class OptimizerKeys(Group):
    """Which optimizer, and its settings."""

    type: OptimizerName = "adam"
    """Name of the optimizer, in upper or lower case. Adam and AdamW are the same: Adam with decoupled weight decay."""

    params: Section = Field(DERIVED)
    """Settings of the optimizer. Default: lr 1e-3, betas (0.9, 0.999), eps 1e-8."""


class OptimizerParamsKeys(Group):
    """Settings of the optimizer; these are Adam's."""

    lr: Number = Field(1e-3, ge=0)
    """Peak learning rate, reached at the end of warm-up. Larger models need smaller ones: about 6e-4 for 125 million parameters, 1e-4 for
    20 billion."""

    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the running means of gradients and of their squares. Large models use a second one of 0.95, which forgets a burst of
    large gradients sooner."""

    eps: Number = Field(1e-8, ge=0)
    """Added to the root of the mean square before dividing by it; keeps steps small where gradients vanish."""

    weight_decay: Number = Field(DERIVED, ge=0)
    """Another way to write the key weight_decay. Default: that key."""


class Fp16Keys(Group):
    """Training in fp16, whose gradients need a loss scale."""

    enabled: bool = Field(DERIVED)
    """Another way to write precision: fp16. Default: whether precision is fp16."""

    loss_scale: Number = Field(0.0, ge=0)
    """Fixed factor of the loss; 0 adjusts it while training."""

    initial_scale_power: Integer = 16
    """A dynamic loss scale starts at 2 to this power."""

    loss_scale_window: Integer = Field(1000, ge=1)
    """Iterations without overflow after which a dynamic loss scale doubles."""

    hysteresis: Integer = Field(2, ge=1)
    """Overflows before a dynamic loss scale halves."""

    consecutive_hysteresis: bool = False
    """Count only overflows in a row: an iteration without one starts the count again."""

    min_loss_scale: Integer = Field(1, ge=1)
    """Smallest dynamic loss scale."""

    auto_cast: bool = False
    """Let DeepSpeed turn the inputs of the model into fp16. Token numbers stay what they are."""

    fp16_master_weights_and_grads: bool = False
    """Keep the optimizer's weights and gradients in fp16 as well, which only works with offloaded optimizer states."""

    type: str | None = None
    """`bfloat16` makes this section mean precision: bfloat16. Other values change nothing."""

    fp16: bool | None = None
    """Accepted and not used: older DeepSpeed ignored it."""

    bf16: bool | None = None
    """Accepted and not used: older DeepSpeed ignored it."""


class Bf16Keys(Group):
    """Training in bfloat16, which needs no loss scale."""

    enabled: bool = Field(DERIVED)
    """Another way to write precision: bfloat16. Default: whether precision is bfloat16."""

    immediate_grad_update: bool = False
    """Add each gradient to its fp32 sum as soon as it is there."""

    check_grad_overflow: bool = True
    """Leave out a step whose gradients are infinite or not a number."""

    bf16_master_weights_and_grads: bool = False
    """Keep the optimizer's weights and gradients in bfloat16 as well: half the memory, and small updates are rounded away."""

    bf16_optimizer_states: bool = False
    """With bf16_master_weights_and_grads: keep the optimizer's moments in bfloat16 too."""

    bf16: bool | None = None
    """Accepted and not used: older DeepSpeed ignored it."""

    fp16: bool | None = None
    """Accepted and not used: older DeepSpeed ignored it."""

    loss_scale: Number | None = None
    """Accepted and not used: bfloat16 has the range of fp32."""

    loss_scale_window: Number | None = None
    """Accepted and not used: belongs to a loss scale."""

    hysteresis: Number | None = None
    """Accepted and not used: belongs to a loss scale."""

    min_loss_scale: Number | None = None
    """Accepted and not used: belongs to a loss scale."""

    initial_scale_power: Number | None = None
    """Accepted and not used: belongs to a loss scale."""


class DataTypesKeys(Group):
    """Number formats of intermediate values."""

    grad_accum_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Format in which gradients are summed over micro-batches. fp32 costs 4 bytes a parameter; the others lose small contributions."""


class RopeScalingKeys(Group):
    """How rotations are slowed down for long contexts. Each type has keys of its own."""

    type: Annotated[str, ComponentName(ROPE_SCALINGS)] = Field(DERIVED)
    """`linear` slows all rotations down alike, `llama3` and `yarn` the slow ones only. Must be given."""

    factor: Number = Field(DERIVED, ge=1)
    """How many times slower the slowed rotations become: usually the new length over the one first trained with. Must be given."""

    original_max_position_embeddings: Integer = Field(DERIVED, ge=1)
    """llama3, yarn: length in tokens that the model was first trained with. Must be given there."""

    low_freq_factor: Number = Field(DERIVED, gt=0)
    """llama3: rotations that turn fewer times than this in the original length are slowed down fully. Must be given there."""

    high_freq_factor: Number = Field(DERIVED, gt=0)
    """llama3: rotations that turn more often than this in the original length stay. Must be given there."""

    beta_fast: Number = Field(32.0, gt=0)
    """yarn: rotations that turn more often than this in the original length stay."""

    beta_slow: Number = Field(1.0, gt=0)
    """yarn: rotations that turn fewer times than this in the original length are slowed down fully."""

    attention_factor: Number = Field(DERIVED, gt=0)
    """yarn: factor of rotated queries and keys, so that attention over more tokens stays as sharp. Default: 0.1 * ln(factor) + 1."""


class FlopsProfilerKeys(Group):
    """DeepSpeed's report of operations and times by module, of one iteration."""

    enabled: bool = False
    """Whether there is a report."""

    profile_step: Integer = Field(1, ge=0)
    """Iteration that is measured. It runs slower; take one after the first few."""

    module_depth: Integer = Field(-1, ge=-1)
    """How deep into the tree of modules sums are shown; -1 goes to the innermost."""

    top_modules: Integer = Field(1, ge=1)
    """Modules listed at each depth, largest first."""

    detailed: bool = True
    """Show every module, not only the sums."""

    output_file: str | None = None
    """File of the report. Default: the console."""

    recompute_fwd_factor: Number = Field(0.0, ge=0)
    """Forward passes to add for recomputed activations: 1 when every block is recomputed."""


class CommsLoggerKeys(Group):
    """DeepSpeed's record of the sizes and times of its collective operations."""

    enabled: bool = False
    """Whether operations are recorded."""

    verbose: bool = False
    """Print every operation when it happens instead of a sum at the end."""

    prof_all: bool = True
    """Record all operations."""

    prof_ops: Texts = ()
    """With prof_all false: names of the operations to record, such as all_reduce."""

    debug: bool = False
    """Add the name of the calling function to each operation."""


class MonitorKeys(Group):
    """A copy of DeepSpeed's own few metrics."""

    enabled: bool = False
    """Whether they are written."""

    output_path: str = ""
    """Directory they are written to. Default: the working directory."""

    job_name: str = "DeepSpeedJobName"
    """Name of the directory in it."""
