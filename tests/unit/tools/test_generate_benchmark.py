"""The benchmark of generation: all ways give the same tokens, and what it makes of the times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tools.benchmark.generate_rounds import Sizes, equal_part, measure_case, problems_of, table_of, weight_bytes
from tools.benchmark.generate_ways import MODELS, load_ways, write_model


@pytest.mark.parametrize("name", ["pythia tiny", "llama tiny"])
def test_every_way_gives_the_same_tokens_and_is_measured(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    architecture, device = MODELS[name], torch.device("cpu")
    write_model(architecture, tmp_path, dtype=torch.float32)
    ways = load_ways(architecture, tmp_path, dtype=torch.float32, device=device)
    case = measure_case(ways, Sizes(2, 5, 4), vocab_size=architecture.vocab_size, rounds=2, device=device)
    assert {"ours", "transformers", "transformers, static cache"} <= set(ways)
    assert set(case["tokens_as_ours"].values()) == {1.0}
    assert len(case["rounds"]) == 2
    for taken in case["rounds"]:
        for way in ways:
            assert 0 < taken[way]["step_seconds"] < taken[way]["whole_seconds"]
    lines = table_of(case, bytes_a_step=weight_bytes(architecture, torch.float32))
    assert [line.split("  ")[0] for line in lines[2:]] == list(ways)


def test_a_way_that_gives_other_tokens_or_is_nearly_as_fast_is_a_problem() -> None:
    case: dict[str, Any] = {
        "ratios": {"transformers": {"step": 2.0}, "litgpt": {"step": 1.1}},
        "tokens_as_ours": {"transformers": equal_part([[1, 2], [3, 4]], [[1, 9], [3, 4]]), "litgpt": 1.0},
    }
    assert case["tokens_as_ours"]["transformers"] == 0.75
    assert problems_of(case, exact=True) == [
        "litgpt is only 1.10 times slower, not 1.15",
        "transformers gives other tokens",
    ]
    assert problems_of(case, exact=False) == ["litgpt is only 1.10 times slower, not 1.15"]


def test_a_step_reads_every_weight_but_the_embedding() -> None:
    tiny = MODELS["pythia tiny"]
    hidden, rows = tiny.hidden_size, tiny.vocab_size
    block = 12 * hidden**2 + 9 * hidden + 4 * hidden  # matrices, their biases, two norms
    numbers = 2 * block + 2 * hidden + rows * hidden
    assert weight_bytes(tiny, torch.float32) == 4 * numbers
    assert weight_bytes(tiny, torch.bfloat16) == 2 * numbers
