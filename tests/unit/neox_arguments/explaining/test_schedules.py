"""Growth and evaluation in words."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.schedules import configured_evaluation, evaluation, growth

LISTS: dict[str, Any] = {"train_data_paths": ["a"], "valid_data_paths": ["b"], "test_data_paths": []}
SETS: dict[str, Any] = {"validation_sets": {"code": {"paths": ["c"]}, "wiki": {"paths": ["w"]}}}


def arguments(**changes: Any) -> NeoXArgs:
    config = {
        "num_layers": 1,
        "hidden_size": 8,
        "num_attention_heads": 1,
        "seq_length": 128,
        "train_iters": 100,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 4,
        "eval_interval": 10,
        "eval_iters": 5,
    }
    return NeoXArgs.from_dict({**config, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_path": "a", "split": "8,1,0"}, "validation every 10 iterations and after training, 5 batches of 8 samples"),
        (
            {"data_path": "a", "split": "8,1,1", **SETS},
            "validation, code, wiki every 10 iterations and after training, 5 batches of 8 samples each; "
            "test after training, 5 batches of 8 samples",
        ),
        ({"data_path": "a", "eval_iters": 0}, "none: eval_iters is 0"),
        (
            {"data_path": "a", "eval_iters": 0, "eval_tasks": ["piqa", "arc_easy"], "eval_tasks_interval": 20},
            "none: eval_iters is 0; tasks piqa, arc_easy every 20 iterations and after training",
        ),
        (
            {"data_path": "a", "split": "8,1,0", "eval_tasks": ["piqa"]},
            "validation every 10 iterations and after training, 5 batches of 8 samples; tasks piqa after training",
        ),
        ({"data_path": "a", "split": "100,0,0"}, 'none while training: split "100,0,0" leaves no documents for validation'),
        ({"data_path": "a", "split": "100"}, 'none while training: split "100" leaves no documents for validation'),
        ({**LISTS, "valid_data_paths": []}, "none while training: valid_data_paths is empty"),
        (
            {**LISTS, "eval_interval": 101},
            "validation after training only (eval_interval is 101), 5 batches of 8 samples",
        ),
        ({**LISTS, "eval_interval": 0}, "validation after training only (eval_interval is 0), 5 batches of 8 samples"),
        (
            {"train_data_paths": ["a"], "test_data_paths": ["t"], **SETS},
            "code, wiki every 10 iterations and after training, 5 batches of 8 samples each; "
            "test after training, 5 batches of 8 samples",
        ),
    ],
)  # fmt: skip
def test_a_run_says_what_it_is_evaluated_on(changes: dict[str, Any], words: str) -> None:
    assert configured_evaluation(arguments(**changes)) == words


def test_sets_without_documents_are_named() -> None:
    args = arguments(data_path="a", split="8,1,0", **SETS)
    assert evaluation(args, ["code"], test=False).endswith("5 batches of 8 samples; wiki holds no documents")
    assert (
        evaluation(arguments(**LISTS), [], test=False) == "none while training: the validation data holds no documents"
    )


def test_an_empty_list_is_none_on_purpose_and_a_missing_one_a_mistake() -> None:
    arguments(**{**LISTS, "valid_data_paths": [], "test_data_paths": []})
    with pytest.raises(ConfigError, match="give valid_data_paths as well"):
        arguments(train_data_paths=["a"], test_data_paths=[])
    with pytest.raises(ConfigError, match="give train_data_paths as well"):
        arguments(**{**LISTS, "train_data_paths": []})


def test_what_grows_is_told() -> None:
    section = {"enabled": True, "min_difficulty": 8, "max_difficulty": 128}
    linear = {**section, "schedule_config": {"total_curriculum_step": 50, "difficulty_step": 8}}
    lengths = {"difficulty": [16, 128], "max_step": [20]}
    discrete = {**section, "schedule_type": "fixed_discrete", "schedule_config": lengths}
    assert growth(arguments()) == {}
    assert growth(arguments(rampup_batch_size=[2, 2, 60], curriculum_learning=linear)) == {
        "ramp-up": "from 2 samples a step to 8 by 2, in the first 19 steps, 64 samples",
        "curriculum": "the first 8 tokens of each sample, 128 from iteration 50 on",
    }
    assert growth(arguments(curriculum_learning=discrete)) == {
        "curriculum": "the first 16 tokens of each sample, 128 from iteration 21 on"
    }
