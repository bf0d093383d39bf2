"""The file of samples: one JSON object a line, on the disk as soon as its batch is done."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron.errors import DataError
from megatron.generation.rows import Completion


class SampleFile:
    """Writes samples to `path`. What an earlier run wrote stays until there is something to write.

    Raises DataError at once when the file cannot be written.
    """

    def __init__(self, path: str | Path, *, with_logits: bool = False) -> None:
        self.path = Path(path)
        self._with_logits = with_logits
        self._began = False
        try:
            existed = self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
            if not existed:
                self.path.unlink()
        except OSError as error:
            raise self._problem(error) from error

    def write(self, completions: Sequence[Completion]) -> None:
        """Add a line each. A line is one write, and one that does not fit on the disk is taken back: the file holds whole lines only."""
        lines = [json_line(sample_record(completion, with_logits=self._with_logits)) for completion in completions]
        mode = "ab" if self._began else "wb"
        self._began = True
        try:
            with self.path.open(mode, buffering=0) as file:
                for line in lines:
                    start = file.tell()
                    if file.write(line) != len(line):
                        file.truncate(start)
                        raise OSError("no space is left")
        except OSError as error:
            raise self._problem(error) from error

    def _problem(self, error: OSError) -> DataError:
        return DataError(
            f'"sample_output_file" is "{self.path}", which cannot be written ({error.strerror or error}): give the path of a file'
        )


def sample_record(completion: Completion, *, with_logits: bool = False) -> dict[str, Any]:
    """What is written of a completion. `context` is GPT-NeoX's name for the prompt; a number that is not finite is null."""
    record: dict[str, Any] = {
        "context": completion.prompt,
        "prompt": completion.prompt,
        "text": completion.text,
        "length": len(completion.tokens),
        "tokens": completion.tokens,
        "log_probabilities": _finite(completion.log_probabilities),
        "finish_reason": completion.finish_reason,
        "finished": completion.finished,
        "duration_seconds": round(completion.seconds, 3),
    }
    if with_logits:
        record["logits"] = [_finite(logits.tolist()) for logits in completion.logits]
    return record


def json_line(record: dict[str, Any]) -> bytes:
    """A record as one line of UTF-8."""
    return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", errors="replace")


def _finite(numbers: Sequence[float]) -> list[float | None]:
    return [number if math.isfinite(number) else None for number in numbers]
