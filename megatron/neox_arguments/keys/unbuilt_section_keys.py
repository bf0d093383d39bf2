"""The keys inside sections of features that are not built yet: what existing configs write there."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import DERIVED, Group, Integer, Number, Section


class SoftPromptKeys(Group):
    """Embeddings that are trained in place of the model."""

    enabled: bool = False
    """Whether only the prompt is trained."""

    num_tokens: Integer = Field(10, ge=1)
    """Length of the prompt in tokens; the sample has so many fewer."""

    init_string: str = ""
    """Text whose embeddings the prompt starts from. Default: random ones."""

    init_range: Number = Field(0.5, gt=0)
    """Random embeddings are drawn evenly between minus and plus this."""


class SparsityKeys(Group):
    """Which pairs of tokens sparse attention types look at, in blocks."""

    block: Integer = Field(16, ge=1)
    """Tokens along the side of a block."""

    num_local_blocks: Integer = Field(4, ge=1)
    """sparse_fixed: blocks in a window, all of which see one another."""

    num_global_blocks: Integer = Field(1, ge=0)
    """sparse_fixed, bigbird: blocks of a window that all others see."""

    num_random_blocks: Integer = Field(1, ge=0)
    """sparse_variable, bigbird: blocks at random places that each row sees."""

    num_sliding_window_blocks: Integer = Field(3, ge=1)
    """bigbird, bslongformer: width of the window around the diagonal, in blocks."""

    different_layout_per_head: bool = False
    """Draw other blocks for every head."""


class SchedulerKeys(Group):
    """A learning-rate schedule of DeepSpeed's."""

    type: str = Field(DERIVED)
    """Name of the schedule, such as WarmupDecayLR. Must be given."""

    params: Section = Field(DERIVED)
    """Settings of the schedule."""


class WandbKeys(Group):
    """DeepSpeed's own few metrics at Weights & Biases."""

    enabled: bool = False
    """Whether they are sent."""

    group: str | None = None
    """Group of the run."""

    team: str | None = None
    """Team the run belongs to."""

    project: str = "deepspeed"
    """Project the run belongs to."""


class AmpKeys(Group):
    """Mixed precision by apex."""

    enabled: bool = False
    """Whether it is used."""

    opt_level: str = "O1"
    """How much is computed in fp16, from O0 (nothing) to O3 (everything)."""


class ActivationCheckpointingKeys(Group):
    """DeepSpeed's recomputation of activations."""

    partition_activations: bool = False
    """Divide kept activations over tensor ranks."""

    cpu_checkpointing: bool = False
    """Keep activations in host memory."""

    contiguous_memory_optimization: bool = False
    """Keep activations in one preallocated buffer."""

    number_checkpoints: Integer | None = Field(None, ge=1)
    """Blocks whose inputs are kept, with contiguous_memory_optimization."""

    synchronize_checkpoint_boundary: bool = False
    """Wait for the GPU after each block."""

    profile: bool = False
    """Time forward and backward of each block."""


class CheckpointKeys(Group):
    """DeepSpeed's own checkpoints."""

    tag_validation: Literal["Ignore", "Warn", "Fail"] = "Warn"
    """What happens when ranks disagree on the name of a checkpoint."""

    load_universal: bool = False
    """Load a checkpoint that was converted to fit every layout."""

    use_node_local_storage: bool = False
    """Whether each machine writes to a disk of its own."""

    parallel_write: Any = None
    """{pipeline_stage}: write the files of pipeline stages at the same time."""
