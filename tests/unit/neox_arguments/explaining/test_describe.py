from __future__ import annotations

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.describe import override_lines, summary
from megatron.neox_arguments.reading.load import apply_overrides, parse_yaml
from megatron.neox_arguments.reading.values import ConfigValues

TEXT = """num-layers: 4
hidden_size: 64
num_attention_heads: 4
seq_length: 32
train_batch_size: 32
train_micro_batch_size_per_gpu: 2
train_iters: 100
norm: layernorm
optimizer: {type: Adam, params: {lr: 6e-4}}
synchronize_each_layer: true
"""


def described(*assignments: str, world_size: int = 8) -> tuple[ConfigValues, list[list[str]]]:
    """The values, and each line of the summary cut at runs of spaces."""
    values = apply_overrides(parse_yaml(TEXT, source="a.yml"), assignments)
    lines = summary(NeoXArgs.from_values(values, world_size=world_size), values)
    return values, [[part for part in line.strip().split("  ") if part] for line in lines]


def cells(lines: list[list[str]]) -> list[list[str]]:
    return [[part.strip() for part in line] for line in lines]


def test_chosen_values_are_listed_with_their_origins_and_defaults_are_not() -> None:
    _, lines = described()
    rows = cells(lines)
    assert ["num_layers", "4", "a.yml:1:1"] in rows
    assert ["optimizer", '{"type": "Adam", "params": {"lr": 0.0006}}', "a.yml:9:1"] in rows
    assert not [row for row in rows if row and row[0] == "norm"]


def test_derived_values_are_listed_with_their_rules() -> None:
    _, lines = described("model_parallel_size=2")
    rows = cells(lines)
    rule = "train = micro x accumulation x data-parallel size: 32 = 2 x 4 x 4"
    assert ["gradient_accumulation_steps", "4", rule] in rows
    assert ["attention_config", '"global x 4"', "one type a layer"] in rows
    assert ["lr", "0.0006", "optimizer.params.lr"] in rows
    assert ["warmup_steps", "1.0", "warmup x lr_decay_steps"] in rows


def test_a_value_that_is_written_again_unchanged_is_no_override() -> None:
    assert override_lines(apply_overrides(parse_yaml("num_layers: 4", source="a.yml"), ["num_layers=4"])) == []


def test_overrides_are_listed() -> None:
    values, lines = described("num_layers=2")
    assert override_lines(values) == ['"num_layers": 4 (a.yml:1:1) -> 2 (command line)']
    assert override_lines(values) in lines


def test_keys_without_effect_are_remarked_upon() -> None:
    _, lines = described()
    remarks = [line[0] for line in lines if line and line[0].startswith('"synchronize_each_layer"')]
    assert len(remarks) == 1
    assert "(a.yml:10:25): accepted without effect" in remarks[0]


def test_the_layout_is_told() -> None:
    _, lines = described("pipe_parallel_size=2", "model_parallel_size=2")
    flat = [line[0] for line in lines if line]
    assert "8 processes = 2 pipeline stages x 2 data-parallel copies x 2 tensor ranks" in flat
    assert "32 samples a step = 2 a micro-batch x 8 accumulated x 2 data-parallel copies; 1,024 tokens" in flat
