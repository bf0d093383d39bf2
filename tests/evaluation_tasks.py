"""A directory of tasks for lm-eval with data of its own: multiple choice, perplexity of texts, generation, a group and a tag."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

WORDS = ("import", "def", "return", "class", "self", "lambda", "yield", "pass")
CHOICES = [
    {"start": "import def", "ends": [" return", " class", " self"], "answer": number % 3} for number in range(9)
] + [{"start": f"{word} ", "ends": ["pass", "xyz"], "answer": 0} for word in WORDS]
PAIRS = [{"start": f"{word} ", "ends": ["pass", "class"], "answer": number % 2} for number, word in enumerate(WORDS)]
TEXTS = [{"text": " ".join(WORDS[:count])} for count in (2, 5, 8)] + [{"text": " ".join(["self.self"] * 9)}]
PROMPTS = [{"prompt": f"{word} ", "wanted": "pass"} for word in WORDS]


def write_tasks(directory: Path) -> Path:
    """Write `small_choice` and `small_pairs`, the group `small` of both, `small_texts`, `small_words`, and the tag `small_tag` of all four."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, examples in {"small_choice": CHOICES, "small_pairs": PAIRS}.items():
        write_task(
            directory,
            name,
            examples,
            output_type="multiple_choice",
            doc_to_text="{{start}}",
            doc_to_target="answer",
            doc_to_choice="ends",
            target_delimiter="",
            metric_list=[_metric("acc"), _metric("acc_norm")],
        )
    write_task(
        directory,
        "small_texts",
        TEXTS,
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="text",
        metric_list=[
            {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
            {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
        ],
    )
    write_task(
        directory,
        "small_words",
        PROMPTS,
        output_type="generate_until",
        doc_to_text="{{prompt}}",
        doc_to_target="wanted",
        generation_kwargs={"until": [" "], "max_gen_toks": 6, "do_sample": False},
        metric_list=[_metric("exact_match")],
    )
    group = {
        "group": "small",
        "task": ["small_choice", "small_pairs"],
        "aggregate_metric_list": [{"metric": "acc"}],
        "metadata": {"version": 3},
    }
    (directory / "small.yaml").write_text(yaml.safe_dump(group))
    return directory


def write_task(directory: Path, name: str, examples: Sequence[Mapping[str, Any]], **settings: Any) -> Path:
    """Write one task and its examples; returns the YAML file. settings: keys of the task, in place of those here."""
    data = directory / f"{name}.jsonl"
    data.write_text("".join(json.dumps(example) + "\n" for example in examples))
    task = {
        "task": name,
        "tag": "small_tag",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "metadata": {"version": 1},
    }
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**task, **settings}))
    return path


def _metric(name: str) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": True}
