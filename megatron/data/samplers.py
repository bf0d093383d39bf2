"""Which samples a data-parallel rank reads at step k: a pure function, so there is no sampler state to save or restore.

Step k takes samples `samples_before(k)` .. `samples_before(k + 1) - 1` of the dataset (of the run's BatchSchedule), in whatever layout. They
are laid out as one row of `micro_batch * data_parallel_size` samples a micro-batch, and rank r takes a contiguous slice of each row.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron.neox_arguments.batch_schedule import BatchSchedule


@dataclass(frozen=True)
class BatchPlan:
    """How the batches of `schedule` are divided: into micro-batches in time, and among data-parallel ranks in space.

    Every batch must be a multiple of `micro_batch * data_parallel_size`.
    """

    micro_batch: int
    schedule: BatchSchedule
    data_parallel_size: int = 1
    data_rank: int = 0

    @classmethod
    def constant(
        cls, micro_batch: int, accumulation: int = 1, data_parallel_size: int = 1, data_rank: int = 0
    ) -> BatchPlan:
        """The same number of micro-batches in every step."""
        schedule = BatchSchedule.constant(micro_batch * accumulation * data_parallel_size)
        return cls(micro_batch, schedule, data_parallel_size, data_rank)

    def accumulation_of(self, step: int) -> int:
        """Micro-batches of step number `step` on each rank."""
        return self.schedule.batch_of(step) // (self.micro_batch * self.data_parallel_size)


def samples_of_step(step: int, plan: BatchPlan) -> list[range]:
    """The samples that `plan.data_rank` reads at `step`: one range of `micro_batch` sample numbers a micro-batch."""
    row = plan.micro_batch * plan.data_parallel_size
    first = plan.schedule.samples_before(step) + plan.data_rank * plan.micro_batch
    starts = [first + micro * row for micro in range(plan.accumulation_of(step))]
    return [range(start, start + plan.micro_batch) for start in starts]
