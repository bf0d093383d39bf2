"""Saving, loading and keeping checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import Group, Integer, IntegerOrNumber


class CheckpointArgs(Group):
    """Where checkpoints lie, when they are written and what is read back."""

    save: str | None = None
    """Directory checkpoints are written to, one folder `global_step{N}` each; or a URL of a store (`s3://bucket/run`, `gs://bucket/run`,
    any that fsspec knows), into which every process uploads its part by way of its node's TMPDIR. Default: nothing is saved."""

    load: str | None = None
    """Directory, or URL, of checkpoints to continue from. A missing checkpoint is an error unless load_if_exists allows it; existing GPT-NeoX
    then starts from random weights. A run can as well begin from a model of Hugging Face transformers, hf:DIRECTORY or hf:ORGANISATION/NAME
    of their Hub, from Llama as Meta publishes it, or go on from a directory of GPT-NeoX, in any layout. Default: a new run."""

    load_if_exists: bool = False
    """Start from the beginning when `load` holds no checkpoint yet. Give save and load the same directory and set this, and the same
    command starts and continues a run."""

    iteration: Integer | None = Field(None, ge=0)
    """Iteration of the checkpoint to load. Default: the latest checkpoint."""

    verify_checkpoint: Literal["fast", "full"] = "fast"
    """How closely a checkpoint is looked at before it is loaded: `fast` compares the sizes of all files and the SHA-256 of the small ones,
    `full` the SHA-256 of every file, shared out among the processes of the run. Checkpoints are deleted (keep_last_n_checkpoints) only
    after one of those that stay has been looked at in the same way."""

    checkpoint_scale: Literal["linear", "log"] = "linear"
    """Save at multiples of checkpoint_factor (linear) or at 1, f, f^2, ... (log)."""

    checkpoint_factor: IntegerOrNumber | None = Field(None, gt=0)
    """Iterations between checkpoints (linear), or their ratio, above 1 (log). Default: only extra_save_iters and the last iteration."""

    extra_save_iters: tuple[Annotated[Integer, Field(ge=0)], ...] | None = None
    """Further iterations to save at; 0 is the untrained model. Default: none."""

    keep_last_n_checkpoints: Integer | None = Field(None, ge=1)
    """Keep this many complete checkpoints and delete older ones, after each save. Damaged ones neither count nor go, and nothing is
    deleted unless one that stays is known to be good. Default: all are kept."""

    async_save: bool = False
    """Go on training while a checkpoint is written: training stands still only for a copy of the state in host memory, at the speed of
    memory. Costs that memory for the whole run: 12 bytes a parameter of a run with Adam (4 with no_save_optim), divided among its
    processes. At most one checkpoint is on its way: the next waits for it, and so does the end of the run. When it cannot be written, the
    run stops with the reason at its next step."""

    no_save_optim: bool = False
    """Leave optimizer states out of checkpoints: a third of the size, but training cannot continue exactly."""

    no_save_rng: bool = False
    """Leave random-number states out. Accepted: they are functions of seed and iteration, so there are none to save."""

    no_load_optim: bool = False
    """Load weights only and go on with a fresh optimizer: moments of zero, its count of steps (for Adam's bias correction) at 0, the
    loss scale as at the start. The iteration, and with it learning rate and data, goes on."""

    no_load_rng: bool = False
    """Do not restore random-number states. Accepted: there are none. Dropout and the order of the data are functions of the seed, the
    iteration and the sample; give another `seed` for other ones."""

    finetune: bool = False
    """Load weights only and start a new run with them: iteration 0, fresh optimizer states, the learning rate and the data from their
    beginning."""

    allow_data_change: bool = False
    """Go on from a checkpoint although the training data, or its order, is no longer what the run was reading: other files, documents,
    weights, seed, seq_length or packing. Steps go on with sample after sample of the new order. Unless this is set, such a run ends
    with what has changed. Of a large file 64 places are compared: a few bytes changed elsewhere in it do not show."""

    trust_checkpoint: bool = False
    """Read pickled files of other programs even where they hold objects beyond tensors and plain data, which can run code. Set it only
    for files from someone you trust."""

    checkpoint_validation_with_forward_pass: bool = False
    """Keep the losses of a forward pass over made-up text in each checkpoint (`forward_pass.json`), and compare them after loading one: a
    weight that was not loaded, or a setting that changes what the weights compute, ends the run. Works in every layout. Costs four
    evaluation batches a save."""

    s3_path: str | None = None
    """URL that every checkpoint is uploaded to, in the background, once it is complete in the directory `save`: `s3://bucket/run`, or of any
    other store that fsspec knows. Nothing is deleted there; what is not there yet is not deleted in `save`. Default: no uploads."""

    s3_chunk_size: Integer = Field(104857600, ge=1)
    """Bytes in each part of an upload, two of which a process has in memory at a time. S3 takes no less than 5 MiB."""
