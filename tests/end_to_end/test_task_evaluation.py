"""A run that evaluates while it trains: tasks of lm-eval, validation sets, and where all of it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.runs import ON_CPU, TrainedRun, run_deepy, write_config
from tests.evaluation_tasks import write_tasks


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> TrainedRun:
    """A pipeline of two stages that evaluates in the middle and at the end."""
    directory = tmp_path_factory.mktemp("run")
    config = write_config(
        directory,
        small_data,
        num_gpus=2,
        pipe_parallel_size=2,
        train_iters=4,
        checkpoint_factor=4,
        eval_interval=2,
        eval_tasks=["small_choice", "small_words"],
        eval_tasks_interval=2,
        eval_include_path=str(write_tasks(directory / "tasks")),
        validation_sets={"code": {"paths": [str(small_data)]}},
        char_level_ppl=True,
        tensorboard_dir=str(directory / "tensorboard"),
    )
    environment = {**ON_CPU, "HF_DATASETS_CACHE": str(directory / "cache"), "HF_HUB_OFFLINE": "1"}
    run = run_deepy(directory, "train.py", config, environment=environment)
    assert run.exit_code == 0, run.printed
    return run


def records_with(run: TrainedRun, key: str) -> dict[int, dict[str, Any]]:
    """The lines of metrics.jsonl that have a key, by iteration."""
    lines = map(json.loads, (run.directory / "logs" / "metrics.jsonl").read_text().splitlines())
    return {line["iteration"]: line for line in lines if key in line}


def test_tasks_are_evaluated_every_interval_and_are_in_the_metrics(run: TrainedRun) -> None:
    choices = records_with(run, "tasks/small_choice/acc")
    assert list(choices) == [2, 4]
    for record in choices.values():
        assert 0 <= record["tasks/small_choice/acc"] <= 1
        assert record["tasks/small_choice/acc_stderr"] > 0
    assert list(records_with(run, "tasks/small_words/exact_match")) == [2, 4]
    assert "tasks/small_choice after iteration 4: acc 0." in run.printed


def test_each_evaluation_leaves_its_results_beside_the_metrics(run: TrainedRun) -> None:
    files = sorted((run.directory / "logs").glob("eval_results_*.json"))
    contents = sorted((json.loads(file.read_text()) for file in files), key=lambda each: each["model"]["iteration"])
    assert [each["model"]["iteration"] for each in contents] == [2, 4]
    for each in contents:
        told = records_with(run, "tasks/small_choice/acc")[each["model"]["iteration"]]
        assert each["results"]["small_choice"]["acc,none"] == told["tasks/small_choice/acc"]


def test_named_validation_sets_have_loss_and_both_perplexities_in_every_writer(run: TrainedRun) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.directory / "tensorboard"))
    events.Reload()
    for name in ("validation", "validation/code"):
        records = records_with(run, f"{name}/loss")
        assert list(records) == [2, 4]
        for record in records.values():
            # A token of this tokenizer is a character.
            assert record[f"{name}/char_perplexity"] == pytest.approx(record[f"{name}/perplexity"])
            assert record[f"{name}/perplexity"] > 1
        for key in ("loss", "perplexity", "char_perplexity"):
            shown = {event.step: event.value for event in events.Scalars(f"{name}/{key}")}
            assert shown == pytest.approx({step: record[f"{name}/{key}"] for step, record in records.items()})
    assert [event.step for event in events.Scalars("tasks/small_choice/acc")] == [2, 4]
