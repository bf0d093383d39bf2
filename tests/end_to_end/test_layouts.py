"""The same configuration gives the same run on one process and in every parallel layout.

One process, and the layout that is compared with it through generation, are started by `deepy.py`; the other runs are forked.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from megatron.checkpointing.inspecting.tensors import TensorReader
from tests.end_to_end.forked import go_on_forked, train_forked
from tests.end_to_end.runs import TrainedRun, run_deepy, train

LAYOUTS: dict[str, dict[str, Any]] = {
    "data parallel 2": {"num_gpus": 2},
    "tensor parallel 2": {"num_gpus": 2, "model_parallel_size": 2},
    "pipeline 2": {"num_gpus": 2, "pipe_parallel_size": 2},
    "context parallel 2": {"num_gpus": 2, "context_parallel_size": 2},
}
GRID = {"num_gpus": 4, "model_parallel_size": 2, "pipe_parallel_size": 2}
ITERATIONS = 10
TOKENS = 512  # of the tokenizer
ROWS = 519  # of the model, which has a bias for each


def settings_of(**layout: Any) -> dict[str, Any]:
    return {
        "num_gpus": 1,
        "train_iters": ITERATIONS,
        "train_micro_batch_size_per_gpu": 2 if layout.get("num_gpus", 1) == 1 or "model_parallel_size" in layout else 4,
        "vocab_size": ROWS,
        "use_bias_in_output_layer": True,
        **layout,
    }


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> TrainedRun:
    return train(tmp_path_factory.mktemp("one_process") / "run", small_data, **settings_of())


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> TrainedRun:
    return train(tmp_path_factory.mktemp("grid") / "run", small_data, **settings_of(**GRID))


def test_one_process_learns(one_process: TrainedRun) -> None:
    assert len(one_process.losses) == ITERATIONS
    assert one_process.losses[-1] < one_process.losses[0] - 1


def test_rows_that_no_token_has_are_trained_and_saved(one_process: TrainedRun) -> None:
    """Only the partition function moves their bias, which began with zeros."""
    saved = TensorReader(one_process.directory / "checkpoints" / f"global_step{ITERATIONS}")
    for name in ("0.word_embeddings.weight", "8.final_linear.weight", "8.final_linear.bias"):
        assert saved[f"{name}/weight"].shape[0] == ROWS
    assert (saved["8.final_linear.bias/weight"][TOKENS:] < 0).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_gives_the_losses_of_one_process(
    name: str, tmp_path: Path, small_data: Path, one_process: TrainedRun
) -> None:
    assert_equal(train_forked(tmp_path / "run", small_data, **settings_of(**LAYOUTS[name])), one_process)


def test_tensor_ranks_in_a_pipeline_give_the_losses_of_one_process(grid: TrainedRun, one_process: TrainedRun) -> None:
    assert_equal(grid, one_process)


def assert_equal(run: TrainedRun, one_process: TrainedRun) -> None:
    assert run.losses == pytest.approx(one_process.losses, rel=1e-5, abs=0)
    norms, expected = ([step["grad_norm"] for step in each.steps.values()] for each in (run, one_process))
    assert norms == pytest.approx(expected, rel=1e-4, abs=0)


APART = {"reset_attention_mask": True, "reset_position_ids": True, "eod_mask_loss": True}


@pytest.mark.parametrize(("pack_impl", "dropout"), [("packed", 0), ("pack_until_overflow", 0.1)])
def test_packed_documents_are_kept_apart_in_any_layout(
    pack_impl: str, dropout: float, tmp_path: Path, small_data: Path
) -> None:
    """Text shorter than a sample, so that most of its documents share one; resumed half way."""
    settings = {**APART, "pack_impl": pack_impl, "checkpoint_factor": ITERATIONS // 2, "seq_length": 256}
    settings = {**settings, "max_position_embeddings": 256, "hidden_dropout": dropout, "attention_dropout": dropout}
    plain = train_forked(tmp_path / "one", small_data, **settings_of(**settings))
    layout = {**GRID, "sequence_parallel": True, "attention_config": [[["flash"], "all"]]}
    split = train_forked(tmp_path / "split", small_data, **settings_of(**settings, **layout))
    assert split.losses == pytest.approx(plain.losses, rel=1e-5, abs=0)
    assert "validation" in split.printed
    shutil.rmtree(tmp_path / "split" / "checkpoints" / f"global_step{ITERATIONS}")
    (tmp_path / "split" / "checkpoints" / "latest").write_text(f"global_step{ITERATIONS // 2}")
    again = go_on_forked(tmp_path / "split", split.directory / "config.yml")
    assert f"continuing after iteration {ITERATIONS // 2}" in again.printed
    assert again.losses == split.losses


def test_text_is_generated_from_any_layout(tmp_path: Path, grid: TrainedRun, one_process: TrainedRun) -> None:
    """Greedy text of a tensor x pipeline checkpoint, generated on two and on four processes, is that of the one-process run."""
    (tmp_path / "prompts.txt").write_text("import self\ndef\n")
    texts = [
        generate(run, tmp_path, changes)
        for run, changes in (
            (one_process, ()),
            (grid, ("model_parallel_size=1",)),
            (grid, ()),
        )
    ]
    assert texts[0] == texts[1] == texts[2]
    assert len(texts[0]) == 2
    assert all(record["choices"] == {TOKENS} for record in texts[0])


def generate(run: TrainedRun, directory: Path, changes: tuple[str, ...]) -> list[dict[str, Any]]:
    """What is written, without the numbers that may differ; "choices": among how many tokens each was chosen."""
    output = directory / "samples.jsonl"
    done = run_deepy(
        directory,
        "generate.py",
        run.directory / "config.yml",
        *("-i", directory / "prompts.txt", "-o", output, "--iteration", ITERATIONS),
        "maximum_tokens=12",
        "return_logits=true",
        *changes,
    )
    assert done.exit_code == 0, done.printed
    records = [json.loads(line) for line in output.read_text().splitlines()]
    for record in records:
        del record["duration_seconds"]
        assert len(record.pop("log_probabilities")) == record["length"]
        record["choices"] = {len(logits) for logits in record.pop("logits")}
    return records
