"""What a run left behind after it was killed again and again, and whether that is what an undisturbed one leaves."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any, NamedTuple

from megatron.checkpointing.digest import logical_sha256
from megatron.checkpointing.layout import existing_checkpoints, list_checkpoints
from megatron.checkpointing.manifest import check_files

Record = dict[str, Any]


class Result(NamedTuple):
    """What a finished run left behind. records: by iteration, all that metrics.jsonl says of it."""

    names: list[str]
    hashes: dict[int, str]
    records: dict[int, list[Record]]


def result_of(directory: Path) -> Result:
    """Every checkpoint that is left must be whole to the last bit."""
    checkpoints = directory / "checkpoints"
    for found in existing_checkpoints(checkpoints):
        check_files(found.path, "full")
    hashes = {found.iteration: logical_sha256(found.path) for found in list_checkpoints(checkpoints)}
    records: dict[int, list[Record]] = {}
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        records.setdefault(record.pop("iteration"), []).append(record)
    return Result(sorted(path.name for path in checkpoints.iterdir()), hashes, records)


def newest(directory: Path) -> int:
    """The iteration of the newest whole checkpoint, every byte of which is compared with its manifest; 0 for none."""
    whole = list_checkpoints(directory / "checkpoints")
    for found in whole:
        check_files(found.path, "full")
    return max((found.iteration for found in whole), default=0)


def check_same(found: Result, expected: Result) -> None:
    """Nothing but the checkpoints of an undisturbed run, each with its bits, and each iteration with its numbers."""
    assert found.names == expected.names
    assert found.hashes == expected.hashes
    assert {key: numbers(records) for key, records in found.records.items()} == {
        key: numbers(records) for key, records in expected.records.items()
    }


def numbers(records: list[Record]) -> list[Record]:
    """What is computed in an iteration, times and speeds left out; each thing once, however often the iteration was made."""
    kept: list[Record] = []
    for record in records:
        computed = {
            key: value for key, value in record.items() if key.endswith(("loss", "perplexity", "lr", "grad_norm"))
        }
        if computed and computed not in kept:
            kept.append(computed)
    return kept


def resumed_from(printed: str) -> int | None:
    """The iteration after which a run says it goes on; 0 for a new one, None when it did not come so far."""
    said = re.search(r"continuing after iteration (\d+)", printed)
    if said:
        return int(said[1])
    return 0 if "iterations, " in printed else None


def seeded() -> random.Random:
    """Dice thrown with a seed that is printed, or taken from the variable KILLS_SEED to repeat what was."""
    seed = os.environ.get("KILLS_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"\nKILLS_SEED={seed}")
    return random.Random(seed)
