"""Every configuration can be made comparable, and its one-process twin is the same run with nothing divided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.shrinking.comparable import (
    EPS,
    MORE_ROWS,
    MadeUp,
    comparable,
    in_directory,
    on_one_process,
)
from megatron.neox_arguments.shrinking.shrink import shrink
from megatron.tokenizer.char_level import CharLevelTokenizer
from tests.shipped import FILES, features_not_built, read_shipped
from tests.unit.neox_arguments.minimal import MINIMAL

DATA = MadeUp(("made/text0", "made/text1"), ("made/labels0", "made/labels1"))
PATHS = ["a", "b", "c"]


def made(**keys: Any) -> ConfigValues:
    return comparable(ConfigValues.from_dict({**MINIMAL, "train_iters": 10, **keys}), DATA)


def args_of(values: ConfigValues) -> NeoXArgs:
    return NeoXArgs.from_values(values, world_size=1)


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_configuration_has_a_twin_on_one_process_with_the_same_batches_and_model(name: str) -> None:
    values = comparable(read_shipped(name), DATA)
    if features_not_built(values):
        pytest.skip("refused for what is not built")
    values = shrink(values, world_size_limit=8)
    layout, plain = NeoXArgs.from_values(values), NeoXArgs.from_values(on_one_process(values))
    assert plain.global_num_gpus == plain.num_gpus == 1
    assert (plain.zero_stage, plain.checkpoint_activations, plain.sequence_parallel) == (0, False, False)
    same = (
        "num_layers",
        "mlp_width",
        "num_kv_heads",
        "attention_config",
        "norm",
        "seed",
        "optimizer",
        "lr_decay_iters",
    )
    for key in (*same, "train_batch_size", "rampup_batch_size", "train_iters", "seq_length", "curriculum_learning"):
        assert getattr(plain, key) == getattr(layout, key), key


def test_precision_and_eps_are_those_of_a_comparison() -> None:
    args = args_of(made(fp16={"enabled": True, "loss_scale": 0}, hidden_dropout=0.1, attention_dropout=0.2))
    assert (args.precision, args.hidden_dropout, args.attention_dropout) == ("fp32", 0.1, 0.2)
    assert args.optimizer["params"]["eps"] == EPS  # type: ignore[index]


def test_a_model_with_more_rows_than_tokens_still_has_some_and_others_have_none() -> None:
    assert args_of(made()).vocab_size is None
    assert args_of(made(vocab_size=151_936)).vocab_size == MORE_ROWS > CharLevelTokenizer().vocab_size


def test_nothing_is_read_from_or_written_to_elsewhere() -> None:
    there = {
        "load": "x",
        "save": "y",
        "use_wandb": True,
        "tensorboard_dir": "z",
        "vocab_file": "v",
        "launcher": "slurm",
    }
    guards = {"keep_last_n_checkpoints": 1, "no_save_optim": True, "exit_interval": 2, "hostfile": "hosts"}
    args = args_of(in_directory(made(**there, **guards), Path("here")))
    assert (args.load, args.use_wandb, args.tensorboard_dir, args.launcher, args.hostfile) == (
        None,
        None,
        None,
        "local",
        None,
    )
    assert (args.save, args.log_dir) == ("here/checkpoints", "here/logs")
    assert (args.checkpoint_factor, args.no_save_optim, args.keep_last_n_checkpoints) == (1, False, None)


def test_every_dataset_that_is_named_is_a_generated_one() -> None:
    parts = {f"{part}{kind}_data_paths": PATHS for part in ("train", "valid", "test") for kind in ("", "_label")}
    named = {"web": {"paths": ["d"], "label_paths": ["e"]}}
    args = args_of(made(**parts, validation_sets=named, train_data_weights=[1, 2, 3]))
    assert args.data_path is None
    assert args.train_data_paths == ("made/text0", "made/text1", "made/text0")
    assert args.test_label_data_paths == ("made/labels0", "made/labels1", "made/labels0")
    assert args.validation_sets == {"web": {"paths": ["made/text0"], "label_paths": ["made/labels0"]}}


def test_one_dataset_is_split() -> None:
    args = args_of(made(data_path="mine", split="1,0,0"))
    assert (args.data_path, args.split) == ("made/text0", "80,10,10")


def test_the_twin_takes_whole_batches_at_once_unless_they_grow() -> None:
    sizes = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4, "global_num_gpus": 2}
    twin = NeoXArgs.from_values(on_one_process(made(**sizes)))
    assert (twin.train_micro_batch_size_per_gpu, twin.gradient_accumulation_steps) == (16, 1)
    twin = NeoXArgs.from_values(on_one_process(made(**sizes, rampup_batch_size=[4, 4, 16])))
    assert (twin.train_micro_batch_size_per_gpu, twin.gradient_accumulation_steps) == (4, 4)


def test_what_is_not_built_is_still_refused() -> None:
    with pytest.raises(ConfigError, match="weights in host memory"):
        args_of(made(zero_optimization={"stage": 3, "cpu_offload_param": True}))
