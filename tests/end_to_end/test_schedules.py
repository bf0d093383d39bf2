"""Batches and sequences that grow, and several validation sets: the same run when it is resumed on the way in another layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.forked import train_forked
from tests.end_to_end.runs import TrainedRun

ITERATIONS = 12
RESUMED = 5
SAMPLES = [2, 2, 2, 2, 4, 4, 6, 6, 8, 8, 8, 8]
"""What a ramp of 3 increments within 24 samples gives: each begins at or behind a third of them."""
LENGTHS = [8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28, 32]


def evaluations(run: TrainedRun) -> dict[tuple[int, str], float]:
    """Everything evaluated, by iteration and name; of what was evaluated twice, the later."""
    records = map(json.loads, (run.directory / "logs" / "metrics.jsonl").read_text().splitlines())
    return {
        (record["iteration"], name): value
        for record in records
        for name, value in record.items()
        if name.startswith("validation")
    }


def test_growing_batches_and_sequences_go_on_in_another_layout(tmp_path: Path, small_data: Path) -> None:
    settings: dict[str, Any] = {
        "train_iters": ITERATIONS,
        "train_micro_batch_size_per_gpu": 1,
        "rampup_batch_size": [2, 2, 24],
        "curriculum_learning": {
            "enabled": True,
            "min_difficulty": 8,
            "max_difficulty": 32,
            "schedule_config": {"total_curriculum_step": ITERATIONS, "difficulty_step": 4},
        },
        "validation_sets": {"all": {"paths": [str(small_data)]}, "twice": {"paths": [str(small_data)] * 2}},
        "eval_interval": 4,
        "checkpoint_factor": RESUMED,
    }
    plain = train_forked(tmp_path / "one", small_data, num_gpus=1, **settings)
    steps = list(plain.steps.values())
    assert [step["consumed_samples"] for step in steps] == [sum(SAMPLES[: k + 1]) for k in range(ITERATIONS)]
    tokens = [samples * length for samples, length in zip(SAMPLES, LENGTHS, strict=True)]
    assert [step["consumed_tokens"] for step in steps] == [sum(tokens[: k + 1]) for k in range(ITERATIONS)]
    expected = evaluations(plain)
    sets = ("validation", "validation/all", "validation/twice")
    assert set(expected) == {
        (k, f"{name}/{value}") for k in (4, 8, 12) for name in sets for value in ("loss", "perplexity")
    }

    kept = tmp_path / "one" / "checkpoints" / f"global_step{RESUMED}"
    shutil.copytree(kept, tmp_path / "split" / "checkpoints" / kept.name)
    (tmp_path / "split" / "checkpoints" / "latest").write_text(kept.name)
    split = train_forked(tmp_path / "split", small_data, num_gpus=2, pipe_parallel_size=2, **settings)
    assert f"continuing after iteration {RESUMED}" in split.printed
    assert split.losses == pytest.approx(plain.losses[RESUMED:], rel=1e-5, abs=0)
    counters = ("consumed_samples", "consumed_tokens")
    assert [[step[name] for name in counters] for step in split.steps.values()] == [
        [step[name] for name in counters] for step in steps[RESUMED:]
    ]
    later = {key: value for key, value in expected.items() if key[0] > RESUMED}
    assert evaluations(split) == pytest.approx(later, rel=1e-5, abs=0)
