"""Metrics of local tasks are those that the model's own scores give, by hand."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from megatron.evaluation.evaluate import Evaluation, evaluate_tasks, metrics_of, prepare
from megatron.evaluation.settings import EvaluationSettings, evaluation_settings
from megatron.evaluation.tasks import Tasks
from megatron.generation.model import InferenceModel
from megatron.generation.scoring import Scored, score
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE, single_process_groups
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.char_level import CharLevelTokenizer
from tests.evaluation_tasks import CHOICES, PAIRS, TEXTS, WORDS, write_tasks
from tests.unit.generation.models import inference_model
from tests.unit.neox_arguments.minimal import build

TOKENIZER = CharLevelTokenizer()
POSITIONS = 256


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    config = {
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "seq_length": POSITIONS,
        "max_position_embeddings": POSITIONS,
        "train_micro_batch_size_per_gpu": 1,
        "train_iters": 1,
        "pos_emb": "rotary",
        "init_method_std": 0.3,
    }
    rows = TOKENIZER.vocab_size
    specs = build_layer_specs(NeoXArgs.from_dict(config), vocab_size=rows, padded_vocab_size=rows)
    return inference_model(SequentialModel(specs, BuildContext(), seed=1))


def evaluated(
    model: InferenceModel, directory: Path, *words: str, tasks: Tasks | None = None, **changes: object
) -> Evaluation:
    settings = EvaluationSettings(words, include_path=str(directory), **changes)  # type: ignore[arg-type]
    return evaluate_tasks(
        model,
        TOKENIZER,
        settings,
        groups=single_process_groups(),
        vocab_size=TOKENIZER.vocab_size,
        max_positions=POSITIONS,
        tasks=tasks,
    )


def log_likelihoods(model: InferenceModel, pairs: list[tuple[str, str]]) -> list[float]:
    """Of each continuation behind its context, whose last blanks belong to it; an empty context is the end-of-document token."""
    requests = []
    for context, continuation in pairs:
        before = context.rstrip()
        behind = TOKENIZER.tokenize(context[len(before) :] + continuation)
        requests.append(Scored(tuple(TOKENIZER.tokenize(before) or [TOKENIZER.eod]), tuple(behind)))
    return [found.log_likelihood for found in score(model, requests, vocab_size=TOKENIZER.vocab_size)]


def accuracies(model: InferenceModel, examples: list[dict]) -> tuple[float, float]:
    """Shares of examples whose answer is the likeliest, as it is and by the character."""
    plain, by_length = [], []
    for example in examples:
        found = log_likelihoods(model, [(example["start"], end) for end in example["ends"]])
        plain.append(int(np.argmax(found)) == example["answer"])
        lengths = [len(end) for end in example["ends"]]
        by_length.append(int(np.argmax(np.array(found) / lengths)) == example["answer"])
    return float(np.mean(plain)), float(np.mean(by_length))


def test_metrics_are_what_the_scores_of_the_model_give(model: InferenceModel, tmp_path: Path) -> None:
    evaluation = evaluated(model, write_tasks(tmp_path), "small", "small_texts", "small_words", log_samples=True)
    metrics = evaluation.metrics
    for name, examples in {"small_choice": CHOICES, "small_pairs": PAIRS}.items():
        assert (metrics[name]["acc"], metrics[name]["acc_norm"]) == pytest.approx(accuracies(model, examples))
    of_all = accuracies(model, [*CHOICES, *PAIRS])[0]
    assert metrics["small"]["acc"] == pytest.approx(of_all)
    share = metrics["small_pairs"]["acc"]
    assert metrics["small_pairs"]["acc_stderr"] == pytest.approx(math.sqrt(share * (1 - share) / (len(PAIRS) - 1)))

    texts = [example["text"] for example in TEXTS]
    whole = sum(log_likelihoods(model, [("", text) for text in texts]))
    bits = -whole / math.log(2) / sum(map(len, texts))
    assert metrics["small_texts"]["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    perplexity = math.exp(-whole / sum(len(text.split()) for text in texts))
    assert metrics["small_texts"]["word_perplexity"] == pytest.approx(perplexity, rel=1e-3)

    assert set(metrics["small_words"]) == {"exact_match", "exact_match_stderr"}
    assert {task: len(samples) for task, samples in evaluation.samples.items()} == {
        "small_choice": len(CHOICES),
        "small_pairs": len(PAIRS),
        "small_texts": len(TEXTS),
        "small_words": len(WORDS),
    }


def test_tasks_are_prepared_once_and_run_again_and_again(model: InferenceModel, tmp_path: Path) -> None:
    directory = write_tasks(tmp_path)
    tasks = prepare(EvaluationSettings(("small_choice",), include_path=str(directory), num_fewshot=2), SINGLE)
    for path in directory.iterdir():
        if path.is_file():
            path.unlink()
    first = evaluated(model, directory, "small_choice", tasks=tasks, num_fewshot=2)
    second = evaluated(model, directory, "small_choice", tasks=tasks, num_fewshot=2, batch_size=3)
    assert first.metrics == second.metrics
    assert first.results["n-shot"] == {"small_choice": 2}


def test_a_limit_takes_the_first_examples(model: InferenceModel, tmp_path: Path) -> None:
    directory = write_tasks(tmp_path)
    tasks = prepare(EvaluationSettings(("small_choice",), include_path=str(directory)), SINGLE)
    for limit, taken in ((4, 4), (0.5, 9), (100, 17)):
        evaluation = evaluated(model, directory, "small_choice", tasks=tasks, limit=limit)
        assert evaluation.results["n-samples"]["small_choice"] == {"original": 17, "effective": taken}
        assert evaluation.metrics["small_choice"]["acc"] == pytest.approx(accuracies(model, CHOICES[:taken])[0])


def test_the_random_numbers_of_the_run_stay_where_they_are(
    model: InferenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draws(**_: object) -> dict:
        return {"results": {"x": {"drawn,none": random.random() + np.random.rand() + float(torch.rand(()))}}}

    monkeypatch.setattr("lm_eval.evaluator.evaluate", draws)
    directory = write_tasks(tmp_path)
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    drawn = [evaluated(model, directory, "small_words").metrics for _ in range(2)]
    assert drawn[0] == drawn[1] != {}
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_a_filter_is_a_part_of_a_metrics_name() -> None:
    values = {"alias": "x", "sample_len": 3, "acc,none": 0.5, "acc_stderr,none": "N/A", "acc,strict": np.float64(0.25)}
    assert metrics_of({"results": {"x": values}}) == {"x": {"acc": 0.5, "acc,strict": 0.25}}
    assert metrics_of({}) == {}


def test_settings_are_the_keys_of_the_configuration() -> None:
    args = build(eval_tasks=["piqa", "mmlu_*"], eval_limit=0.5, eval_num_fewshot=5, eval_include_path="tasks")
    assert evaluation_settings(args) == EvaluationSettings(
        ("piqa", "mmlu_*"), include_path="tasks", num_fewshot=5, limit=0.5
    )
    assert evaluation_settings(build()).tasks == ()
