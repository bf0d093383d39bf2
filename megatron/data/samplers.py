"""Which samples a data-parallel rank reads at step k: a pure function, so there is no sampler state to save or restore.

Step k takes samples k * B .. (k + 1) * B - 1 of the dataset (B the global batch), in whatever layout. They are laid out as one row
of `micro_batch * data_parallel_size` samples a micro-batch, and rank r takes a contiguous slice of each row.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is divided: into micro-batches in time, and among data-parallel ranks in space.

    offset: how many samples further than step * B step number `step` begins, not 0 in a run whose earlier steps had another batch
    size (negative when they were smaller).
    """

    micro_batch: int
    gradient_accumulation_steps: int = 1
    data_parallel_size: int = 1
    data_rank: int = 0
    offset: int = 0

    @property
    def global_batch(self) -> int:
        """Samples in a step, over all ranks."""
        return self.micro_batch * self.gradient_accumulation_steps * self.data_parallel_size


def samples_of_step(step: int, plan: BatchPlan) -> list[range]:
    """The samples that `plan.data_rank` reads at `step`: one range of `micro_batch` sample numbers a micro-batch."""
    row = plan.micro_batch * plan.data_parallel_size
    first = plan.offset + step * plan.global_batch + plan.data_rank * plan.micro_batch
    starts = [first + micro * row for micro in range(plan.gradient_accumulation_steps)]
    return [range(start, start + plan.micro_batch) for start in starts]
