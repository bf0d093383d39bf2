"""TensorBoard event files in `tensorboard_dir`: every number of a record as a scalar curve over iterations."""

from __future__ import annotations

from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from megatron.monitor.writers.base import errors_name_the_key
from megatron.neox_arguments.monitoring import MonitoringArgs


class TensorBoardWriter:
    """Writes scalars below `train/`, or below the record's own prefix when a key has one (`validation/loss`).

    Raises NeoXError when there can be no such directory.
    """

    def __init__(self, args: MonitoringArgs) -> None:
        with errors_name_the_key("tensorboard_dir", args.tensorboard_dir):
            self._writer = SummaryWriter(log_dir=args.tensorboard_dir)

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        for key, value in record.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(key if "/" in key else f"train/{key}", float(value), iteration)

    def close(self) -> None:
        self._writer.close()
