"""What is measured and where it is written: logs, TensorBoard, Weights & Biases, Comet, profiles."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from megatron.neox_arguments.keys.types import Group, Integer, Number, Section, Texts


class MonitoringArgs(Group):
    """Metrics, their destinations and diagnostics."""

    log_interval: Integer = Field(100, ge=1)
    """Iterations between two lines on the console; metrics.jsonl has every iteration."""

    log_dir: str = "logs"
    """Directory of metrics.jsonl and of what each rank prints (rank_N.log). Existing GPT-NeoX writes no files when this is absent."""

    tensorboard_dir: str | None = None
    """Directory of TensorBoard event files. Default: none are written."""

    tensorboard_writer: Any = None
    """The TensorBoard writer. Set while running."""

    log_grad_norm: bool = False
    """Log the norm of the gradient of each parameter. The global norm is always logged."""

    log_param_norm: bool = False
    """Log the norm of each parameter."""

    log_grad_pct_zeros: bool = False
    """Log the share of exact zeros in the gradients."""

    log_optimizer_states: bool = False
    """Log norms of optimizer moments."""

    log_gradient_noise_scale: bool = False
    """Estimate the gradient noise scale, a guide to the useful batch size."""

    gradient_noise_scale_n_batches: Integer = Field(5, ge=1)
    """Batches averaged for the large-batch estimate of the noise scale."""

    gradient_noise_scale_cpu_offload: bool = False
    """Keep the gradients of that estimate in host memory."""

    peak_theoretical_tflops: Number | None = Field(None, gt=0)
    """Peak of one device in TFLOP/s, the denominator of utilisation. Default: looked up by device name."""

    use_wandb: bool | None = None
    """Write metrics to Weights & Biases. Without a login or a connection they are recorded in log_dir, for `wandb sync`. A run that
    continues from its own checkpoints continues its W&B run. Default: no."""

    wandb_group: str | None = None
    """With use_wandb: group the runs are filed under, e.g. all restarts of one run."""

    wandb_run_name: str | None = None
    """With use_wandb: name of the run. Default: one that W&B invents."""

    wandb_team: str | None = None
    """With use_wandb: team (entity) the runs belong to."""

    wandb_project: str = "neox"
    """With use_wandb: project the runs belong to."""

    wandb_host: str = "https://api.wandb.ai"
    """With use_wandb: address of the server."""

    wandb_init_all_ranks: bool = False
    """With use_wandb: one run per process instead of one in all. Give wandb_group as well, to find them together."""

    use_comet: bool | None = None
    """Write metrics to Comet. Without an API key or a connection they are recorded in log_dir, for `comet upload`. A run that
    continues from its own checkpoints continues its experiment. Default: no."""

    comet_workspace: str | None = None
    """With use_comet: workspace of the experiment."""

    comet_project: str | None = None
    """With use_comet: project of the experiment."""

    comet_experiment_name: str | None = None
    """With use_comet: name of the experiment."""

    comet_tags: Texts | None = None
    """With use_comet: tags of the experiment."""

    comet_others: Section | None = None
    """With use_comet: further key/value pairs shown with the experiment."""

    comet_experiment: Any = None
    """The Comet experiment. Set while running."""

    git_hash: str | None = None
    """Commit of the code, written into saved configs so that a run can be traced. Default: the commit of the checkout."""

    memory_profiling: bool = False
    """Record GPU allocations with their stacks."""

    memory_profiling_path: str | None = None
    """Directory of those records."""

    profile: bool = False
    """Record a torch profile of some iterations."""

    profile_step_start: Integer = Field(10, ge=0)
    """First iteration of the profile."""

    profile_step_stop: Integer = Field(12, ge=0)
    """First iteration that is not in the profile any more."""
