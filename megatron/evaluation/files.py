"""The files that an evaluation leaves: results as JSON, and examples with the model's answers, one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from megatron.atomic import atomic_file
from megatron.errors import DataError


def results_path(prefix: str, now: datetime) -> Path:
    """`eval_results_DATE.json` in the working directory, behind `prefix` and an underscore or in the folder that `prefix` ends with.

    Never the name of a file that is there.
    """
    between = "_" if prefix and not prefix.endswith("/") else ""
    stem = f"{prefix}{between}eval_results_{now:%Y-%m-%d-%H-%M-%S}"
    path, number = Path(f"{stem}.json"), 1
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}.json")
    return path


def check_can_write(prefix: str) -> None:
    """Make the folders that results go into. Raises DataError when that cannot be done, or nothing can be written there."""
    if "://" in prefix:
        raise DataError(
            f'"eval_results_prefix" is "{prefix}": results are written to files of this machine; give a folder, or remove it'
        )
    folder = results_path(prefix, datetime.min).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".eval_results"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(
            f'"eval_results_prefix" is "{prefix}": {folder} cannot be written to ({error.strerror}); choose another folder'
        ) from error


def write_results(path: Path, content: Mapping[str, Any]) -> None:
    """Write results under a name that appears when all of them are on the disk."""
    with atomic_file(path) as file:
        file.write(json.dumps(plain(content), indent=2, ensure_ascii=False).encode() + b"\n")


def write_samples(results: Path, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Write the examples of every task beside `results`; returns the path, `..._samples.jsonl`."""
    path = results.with_name(f"{results.stem}_samples.jsonl")
    with atomic_file(path) as file:
        for task, examples in samples.items():
            for example in examples:
                line = json.dumps(plain({"task": task, **example}), ensure_ascii=False)
                file.write(line.encode() + b"\n")
    return path


def plain(value: Any) -> Any:
    """`value` as JSON has it: numbers of numpy as numbers, NaN and infinities as text, functions by their names, the rest as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if hasattr(value, "tolist"):  # numbers and arrays of numpy
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return (
        f"{value.__module__}.{value.__qualname__}" if callable(value) and hasattr(value, "__qualname__") else str(value)
    )
