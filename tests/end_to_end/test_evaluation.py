"""`deepy.py eval.py` measures a trained model on local tasks, on two copies of it, and writes down what it measured."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.end_to_end.forked import train_forked
from tests.end_to_end.runs import ON_CPU, TrainedRun, run_deepy
from tests.evaluation_tasks import CHOICES, PAIRS, WORDS, write_tasks


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> TrainedRun:
    return train_forked(tmp_path_factory.mktemp("evaluated") / "run", small_data, train_iters=3, num_gpus=1)


def test_two_copies_of_a_model_share_the_tasks(trained: TrainedRun, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks")
    words = ["--eval_tasks", "small", "small_words", "--include_path", tasks, "--num_fewshot", 1, "--log_samples"]
    places = ["--eval_results_prefix", f"{tmp_path}/results/", "num_gpus=2"]
    environment = {**ON_CPU, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    run = run_deepy(
        trained.directory, "eval.py", trained.directory / "config.yml", *words, *places, environment=environment
    )
    assert run.exit_code == 0, run.printed

    path, samples_path = sorted((tmp_path / "results").iterdir(), key=lambda path: path.suffix)
    content = json.loads(path.read_text())
    samples = [json.loads(line) for line in samples_path.read_text().splitlines()]
    for task, examples in {"small_choice": CHOICES, "small_pairs": PAIRS}.items():
        of_task = [sample for sample in samples if sample["task"] == task]
        assert content["n-samples"][task] == {"original": len(examples), "effective": len(examples)}
        likeliest = [max(range(len(each["resps"])), key=lambda end: each["resps"][end][0][0]) for each in of_task]
        right = [end == example["answer"] for end, example in zip(likeliest, examples, strict=True)]
        assert content["results"][task]["acc,none"] == pytest.approx(sum(right) / len(right))
        assert content["n-shot"][task] == 1
    assert len([sample for sample in samples if sample["task"] == "small_words"]) == len(WORDS)

    checkpoint = trained.directory / "checkpoints" / "global_step3"
    assert content["model"] == {
        "load": str(trained.directory / "checkpoints"),
        "checkpoint": str(checkpoint),
        "iteration": 3,
        "manifest_sha256": hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest(),
    }
    assert content["layout"] == {"processes": 2, "pipeline": 1, "tensor": 1, "replicas": 2}
    assert content["configuration"]["values"]["eval_tasks"] == ["small", "small_words"]
    assert content["configuration"]["origins"]["hidden_size"].startswith(str(trained.directory / "config.yml"))
    assert content["command"].startswith(
        f"deepy.py eval.py {trained.directory}/config.yml --eval_tasks small small_words"
    )
    assert content["config"]["fewshot_seed"] == 1234
    assert content["software"]["lm_eval"] == "0.4.13"

    lines = run.printed.splitlines()
    assert f"results are in {path}" in lines
    assert f"examples and answers are in {samples_path}" in lines
    share = content["results"]["small"]["acc,none"]
    assert any(re.fullmatch(rf"small +1 +acc +{share:.4f}  ± 0\.\d{{4}}", line) for line in lines)
    assert not re.search(r"fatal|Traceback|it/s|\d%\|", run.printed), run.printed
