"""What is known of one training step, in the units every view of a run uses."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step.

    loss: nats per token, mean over the global batch; grad_norm: before clipping; step_seconds: wall time of the step;
    model_flops_per_second: forward and backward alone, of all devices together (MFU's numerator); hardware_flops_per_second:
    recomputation included; mfu: fraction of the devices' peak, None where the peak is unknown; memory_bytes: peak of this device;
    pipeline_bubble: idle share of a pipeline's stages, measured, and as expected of the schedule; stage_seconds: what each of them
    computed; all three None without a pipeline and in steps that were not timed.
    """

    iteration: int
    consumed_samples: int
    consumed_tokens: int
    loss: float
    lr: float
    grad_norm: float | None
    loss_scale: float
    skipped: bool
    step_seconds: float
    tokens_per_second: float
    model_flops_per_second: float
    hardware_flops_per_second: float
    mfu: float | None
    memory_bytes: int
    pipeline_bubble: float | None = None
    pipeline_bubble_expected: float | None = None
    stage_seconds: tuple[float, ...] | None = None

    def record(self) -> dict[str, object]:
        """The values to write, without the iteration they are filed under."""
        values = asdict(self)
        del values["iteration"]
        return {key: value for key, value in values.items() if value is not None}
