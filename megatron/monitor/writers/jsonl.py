"""`<log_dir>/metrics.jsonl`: one JSON object a line, the record every other view of a run can be made from.

A resumed run appends; lines of iterations that are trained again are superseded by the later line with the same iteration.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from megatron.monitor.writers.base import FIRST, Process, errors_name_the_key
from megatron.neox_arguments.keys.monitoring import MonitoringArgs

BLOCK_BYTES = 1 << 16


class JsonlWriter:
    """Appends records to `<log_dir>/metrics.jsonl`, flushed line by line so that a killed run keeps every finished step.

    Raises NeoXError when the file cannot be written.
    """

    def __init__(self, args: MonitoringArgs, process: Process = FIRST) -> None:
        self.path = Path(args.log_dir or "logs") / "metrics.jsonl"
        with errors_name_the_key("log_dir", args.log_dir):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_half_line(self.path)
            self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        line = {"iteration": iteration, **{key: _finite(value) for key, value in record.items()}}
        self._file.write(json.dumps(line) + "\n")

    def close(self, *, failed: bool = False) -> None:
        self._file.close()


def _finite(value: object) -> object:
    # JSON has no NaN or infinity; a string keeps the fact and stays readable by every parser.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _drop_half_line(path: Path) -> None:
    """A run killed while writing may leave half a line, which no reader of JSON could make sense of: cut it off."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, 2)
        while end > 0:
            begin = max(0, end - BLOCK_BYTES)
            file.seek(begin)
            last = file.read(end - begin).rfind(b"\n")
            end = begin + last + 1
            if last >= 0:
                break
        file.truncate(end)
