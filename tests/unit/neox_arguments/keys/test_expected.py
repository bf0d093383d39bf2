"""The nearest value that would do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.neox_arguments.minimal import problem


@pytest.mark.parametrize(
    ("key", "value", "fix"),
    [
        ("train_iters", "320,000", "write 320000"),
        ("train_iters", "10 000", "write 10000"),
        ("train_iters", "ten", "write 10"),
        ("train_iters", "5k", "write 5000"),
        ("train_iters", "soon", "write digits, such as 1"),
        ("train_iters", [5], "write 5"),
        ("train_iters", [5, 6], "write digits"),
        ("train_iters", 2.5, "use 2 or 3"),
        ("train_iters", 0, "must be at least 1; set it to 1 or more"),
        ("train_iters", "1_0", "write 10"),
        ("lr", "1.0e_8", "write 1e-08"),
        ("warmup", "1%", "write 0.01"),
        ("warmup", True, "write one such as 0.1"),
        ("warmup", 2, "must be at most 1, as it is a share of the decay iterations; set it to 1 or less"),
        ("hidden_dropout", 1, "must be less than 1; lower it"),
        ("checkpoint_factor", 0, "must be greater than 0; raise it"),
        ("precision", "BF16", 'choose one of fp16, fp32, bfloat16 (did you mean "bfloat16"?)'),
        ("checkpoint_scale", "LOG", '(did you mean "log"?)'),
        ("extra_save_iters", "1, 2", "write [1, 2]"),
        ("extra_save_iters", 3, "write [3]"),
        ("save", ["runs"], "write one, such as runs"),
        ("fp16", True, "write {enabled: true}"),
        ("optimizer", "Adam", "write {type: Adam, params: {lr: 1e-4}}"),
        ("flops_profiler", 3, "write {key: value}"),
    ],
)
def test_wrong_values_are_told_with_a_legal_one(key: str, value: Any, fix: str) -> None:
    message = problem(**{key: value})
    assert message.startswith(f'"{key}" is ')
    assert fix in message


def test_every_wrong_item_of_a_list_is_told() -> None:
    message = problem(extra_save_iters=[1, "x", 2])
    assert message.startswith('"extra_save_iters.1" is "x": ')
