"""TensorBoard event files in `tensorboard_dir`: every number of a record as a scalar curve over iterations."""

from __future__ import annotations

from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from megatron.monitor.writers.base import FIRST, Process, errors_name_the_key, scalars
from megatron.neox_arguments.keys.monitoring import MonitoringArgs


class TensorBoardWriter:
    """Writes scalars below `train/`, or below the record's own prefix when a key has one (`validation/loss`).

    Raises NeoXError when there can be no such directory.
    """

    def __init__(self, args: MonitoringArgs, process: Process = FIRST) -> None:
        with errors_name_the_key("tensorboard_dir", args.tensorboard_dir):
            self._writer = SummaryWriter(log_dir=args.tensorboard_dir)

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, iteration)

    def close(self, *, failed: bool = False) -> None:
        self._writer.close()
