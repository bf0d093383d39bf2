"""Saving, loading and keeping checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import Group, Integer, IntegerOrNumber


class CheckpointArgs(Group):
    """Where checkpoints lie, when they are written and what is read back."""

    save: str | None = None
    """Directory checkpoints are written to, one folder `global_step{N}` each. Default: nothing is saved."""

    load: str | None = None
    """Directory of checkpoints to continue from. A missing checkpoint is an error unless load_if_exists allows it; existing GPT-NeoX
    then starts from random weights. Default: a new run."""

    load_if_exists: bool = False
    """Start from the beginning when `load` holds no checkpoint yet. Give save and load the same directory and set this, and the same
    command starts and continues a run."""

    iteration: Integer | None = Field(None, ge=0)
    """Iteration of the checkpoint to load. Default: the latest checkpoint."""

    checkpoint_scale: Literal["linear", "log"] = "linear"
    """Save at multiples of checkpoint_factor (linear) or at 1, f, f^2, ... (log)."""

    checkpoint_factor: IntegerOrNumber | None = Field(None, gt=0)
    """Iterations between checkpoints (linear), or their ratio, above 1 (log). Default: only extra_save_iters and the last iteration."""

    extra_save_iters: tuple[Annotated[Integer, Field(ge=0)], ...] | None = None
    """Further iterations to save at; 0 is the untrained model. Default: none."""

    keep_last_n_checkpoints: Integer | None = Field(None, ge=1)
    """Keep this many checkpoints and delete older ones. Default: all are kept."""

    no_save_optim: bool = False
    """Leave optimizer states out of checkpoints: a third of the size, but training cannot continue exactly."""

    no_save_rng: bool = False
    """Leave random-number states out. Accepted: they are functions of seed and iteration, so there are none to save."""

    no_load_optim: bool = False
    """Load weights only and start with fresh optimizer states."""

    no_load_rng: bool = False
    """Do not restore random-number states. Accepted: there are none."""

    finetune: bool = False
    """Load weights only and start at iteration 0 with fresh optimizer states and data order."""

    allow_data_change: bool = False
    """Go on from a checkpoint although the training data, or its order, is no longer what the run was reading: other files, documents,
    weights, seed, seq_length or packing. Steps go on with sample after sample of the new order. Unless this is set, such a run ends
    with what has changed. Of a large file 64 places are compared: a few bytes changed elsewhere in it do not show."""

    checkpoint_validation_with_forward_pass: bool = False
    """After saving, load the checkpoint again and compare a forward pass."""

    s3_path: str | None = None
    """`s3://bucket/prefix` that checkpoints are uploaded to."""

    s3_chunk_size: Integer = Field(104857600, ge=1)
    """Bytes in each part of an upload."""
