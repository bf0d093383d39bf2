from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.rewrite import rewrite
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.reading.yaml_text import parse_yaml
from megatron.neox_arguments.resolving.resolve import REQUIRED
from megatron.neox_arguments.resolving.smallest_world import smallest_world
from tests.conftest import REPOSITORY

CONFIGS = sorted(REPOSITORY.glob("configs/**/*.yml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(REPOSITORY / "configs")))
def test_shipped_configs_mean_the_same_when_rewritten(path: Path) -> None:
    values = read_ymls([str(path)])
    rewritten = parse_yaml(rewrite(values), source="new.yml")
    assert set(rewritten.values) == {key for key, value in values.values.items() if value is not None}
    if all(key in values.values for key in REQUIRED):
        size = smallest_world(values)
        args = NeoXArgs.from_values(values, world_size=size, planning=True)
        assert NeoXArgs.from_values(rewritten, world_size=size, planning=True) == args


def test_keys_stand_in_groups_in_the_order_they_were_written() -> None:
    text = "seed: 1\nhidden_size: 8\nlog-interval: 5\nnum_layers: 2\ntrain_iters: 10\n"
    values = apply_overrides(parse_yaml(text, source="a.yml"), ["vocab_file=a", "norm=rmsnorm"])
    blocks = [block.splitlines() for block in rewrite(values).split("\n\n")]
    assert [block[1:] for block in blocks] == [
        ["hidden_size: 8", "num_layers: 2", "norm: rmsnorm"],
        ["seed: 1", "train_iters: 10"],
        ["log_interval: 5"],
        ["vocab_file: a"],
    ]
    assert all(block[0].startswith("# ") for block in blocks)


@pytest.mark.parametrize(
    "text", ["None", "null", "true", "1e-4", "2024-05-01", "007", "a: b", "#1", "", "ä", "a\nb", "1_000", "- a"]
)
def test_text_stays_text(text: str) -> None:
    values = ConfigValues.from_dict({"wandb_run_name": text})
    assert parse_yaml(rewrite(values), source="new.yml").values == {"wandb_run_name": text}


def test_numbers_are_numbers_and_sections_are_blocks() -> None:
    values = parse_yaml('{"optimizer": {"params": {"lr": 6e-4, "eps": 1e-8, "betas": [0.9, 95e-2]}}}', source="a.yml")
    text = rewrite(values)
    lines = "optimizer:\n  params:\n    lr: 0.0006\n    eps: 1.0e-08\n    betas: [0.9, 0.95]\n"
    assert text.endswith(lines)
    assert rewrite(ConfigValues.from_dict({"zero_optimization": {"reduce_bucket_size": "5e8"}})).endswith("500000000\n")
    assert yaml.safe_load(text)["optimizer"]["params"] == {"lr": 6e-4, "eps": 1e-8, "betas": [0.9, 0.95]}
