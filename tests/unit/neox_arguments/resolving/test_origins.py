"""Finished arguments know where each value that is not a default comes from."""

from __future__ import annotations

from pathlib import Path

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls

MODEL = """\
num_layers: 2
hidden_size: 64
num-attention-heads: 4
seq_length: 32
max_position_embeddings: 32
norm: layernorm
warmup: 0.1
optimizer: {type: Adam, params: {lr: 0.001}}
"""
RUN = "train_batch_size: 4\ntrain_iters: 5\nzero_optimization:\n  stage: 1\n"


def read(directory: Path, *assignments: str) -> NeoXArgs:
    """The arguments of two files in `directory` and these assignments, for two processes."""
    files = []
    for name, text in (("model.yml", MODEL), ("run.yml", RUN)):
        (directory / name).write_text(text)
        files.append(str(directory / name))
    return NeoXArgs.from_values(apply_overrides(read_ymls(files), assignments), world_size=2)


def test_values_name_file_and_line_the_command_line_or_the_rule(tmp_path: Path) -> None:
    origins = read(tmp_path, "hidden_size=128", "zero_optimization.reduce_scatter=false").origins()
    assert origins["num_attention_heads"] == f"{tmp_path}/model.yml:3:1"
    assert origins["hidden_size"] == "command line"
    assert origins["zero_optimization"] == f"{tmp_path}/run.yml:3:1, reduce_scatter: command line"
    assert origins["zero_stage"] == f"{tmp_path}/run.yml:4:3"
    assert origins["lr"] == f"{tmp_path}/model.yml:8:34"
    assert origins["train_micro_batch_size_per_gpu"].startswith("derived: ")


def test_defaults_have_no_origin_also_where_they_are_written(tmp_path: Path) -> None:
    assert not {"norm", "rotary_pct"} & read(tmp_path).origins().keys()


def test_arguments_are_equal_wherever_their_values_were_written(tmp_path: Path) -> None:
    first, second = read(tmp_path), read(tmp_path, "hidden_size=64")
    assert first == second
    assert first.origins() != second.origins()


def test_copies_keep_origins(tmp_path: Path) -> None:
    args = read(tmp_path)
    assert args.with_train_iters(7).origins() == args.origins()
