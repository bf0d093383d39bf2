from __future__ import annotations

import time
from typing import Any

import pydantic
import pytest

from megatron.errors import ConfigError, LaunchError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.attribute_docs import attribute_doc
from megatron.neox_arguments.keys.runner import RunnerArgs
from megatron.neox_arguments.reading.load import parse_yaml
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.transport import encode
from tests.unit.neox_arguments.minimal import MINIMAL, build, problem

BROKEN = """{
  "num-layers": 4, "hidden_size": 64, "num_attention_heads": 4,
  "seq_length": "many",
  "norm": "rmsnrom",
  "num_layer": 8,
  "train_iters": 10, "train_epochs": 1,
  "train_micro_batch_size_per_gpu": 0,
}
"""


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("min_lr", "1e-4", 1e-4),
        ("min_lr", "0", 0.0),
        ("rotary_emb_base", "1e6", 1_000_000),
        ("zero_reduce_bucket_size", "5e8", 500_000_000),
        ("checkpoint_factor", "1e3", 1000.0),
        ("train_iters", 50.0, 50),
        ("no_weight_tying", "True", True),
        ("extra_save_iters", [0, "1e2"], (0, 100)),
        ("wandb_group", 7, "7"),
        ("hidden_dropout", None, 0.0),
    ],
)
def test_loosely_written_values_become_what_the_key_means(key: str, value: Any, expected: Any) -> None:
    result = getattr(build(**{key: value}), key)
    assert result == expected
    assert type(result) is type(expected)


def test_null_in_a_section_is_not_given() -> None:
    params = {"lr": 1e-3, "betas": None, "eps": None, "weight_decay": None}
    args = build(optimizer={"type": "Adam", "params": params}, weight_decay=0.1)
    assert args.optimizer_params == {}
    assert args.weight_decay == 0.1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_layers", True, '"num_layers" is true: expected a whole number'),
        ("num_layers", 2.5, '"num_layers" is 2.5: expected a whole number'),
        ("num_layers", "two", '"num_layers" is "two": expected a whole number'),
        ("num_layers", 0, '"num_layers" is 0: must be at least 1'),
        ("train_iters", 2**63, f'"train_iters" is {2**63}: expected a whole number below 2^63'),
        ("train_iters", "1e30", '"train_iters" is "1e30": expected a whole number below 2^63'),
        ("expansion_factor", "1e300", '"expansion_factor" is "1e300": must be at most 1000'),
        ("distributed_backend", "ncll", 'choose one of nccl, gloo, mpi, ucc (did you mean "nccl"?)'),
        ("hidden_dropout", 1, '"hidden_dropout" is 1: must be less than 1'),
        ("rotary_pct", 0, '"rotary_pct" is 0: must be greater than 0'),
        ("warmup", 1.5, '"warmup" is 1.5: must be at most 1'),
        ("lr_decay_style", "cosin", 'choose one of constant, linear, cosine, exponential (did you mean "cosine"?)'),
        ("precision", "bf16", '"precision" is "bf16": choose one of fp16, fp32, bfloat16'),
        ("sequence_parallel", "maybe", "expected true or false"),
        ("train_data_paths", "a", '"train_data_paths" is "a": expected a list; write [a]'),
        ("train_data_paths", ["a", True], '"train_data_paths.1" is true: expected text'),
        ("fp16", True, '"fp16" is true: expected keys and values'),
        ("norm", "rmsnrom", '(did you mean "rmsnorm"?)'),
        ("min_lr", float("nan"), "expected a finite number"),
        ("online_dataserver_ports", "x", '"online_dataserver_ports" is "x": '),
    ],
)
def test_wrong_values_are_told_in_a_sentence(key: str, value: Any, message: str) -> None:
    assert message in problem(**{key: value})


def test_unknown_keys_are_told_with_the_nearest_known() -> None:
    assert problem(num_layer=3) == '"num_layer" is not a known key (did you mean "num_layers"?)'
    assert "configs/neox_arguments.md" in problem(zzzzqqqq=3)


def test_every_mistake_is_reported_at_once_with_its_place_in_under_a_second() -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_values(parse_yaml(BROKEN, source="a.yml"))
    assert time.perf_counter() - start < 1
    assert sorted(message.split(":")[0] for message in caught.value.problems) == [
        '"norm" is "rmsnrom" (a.yml',
        '"num_layer" (a.yml',
        '"seq_length" is "many" (a.yml',
        '"train_iters" is 10 (a.yml',
        '"train_micro_batch_size_per_gpu" is 0 (a.yml',
    ]
    (message,) = (message for message in caught.value.problems if "many" in message)
    assert message.splitlines()[0].startswith('"seq_length" is "many" (a.yml:3:')
    assert message.splitlines()[0].endswith("): expected a whole number; write digits, such as 1")
    assert message.splitlines()[2].count("^") == len('"many"')


def test_missing_keys_of_the_model_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_dict({"train_iters": 1, "train_micro_batch_size_per_gpu": 1})
    (problem,) = caught.value.problems
    assert problem.startswith('"num_layers", "hidden_size", "num_attention_heads", "seq_length" are missing: ')


def test_arguments_are_frozen() -> None:
    with pytest.raises(pydantic.ValidationError):
        build().num_layers = 3  # type: ignore[misc]


def test_the_number_of_processes_may_be_asked_for() -> None:
    asked: list[RunnerArgs] = []

    def count(args: RunnerArgs) -> int:
        asked.append(args)
        return 4

    values = ConfigValues.from_dict({**MINIMAL, "num_gpus": 4})
    assert NeoXArgs.from_values(values, world_size=count).global_num_gpus == 4
    assert asked[0].num_gpus == 4


def test_an_error_while_counting_processes_joins_the_others() -> None:
    def fail(args: RunnerArgs) -> int:
        raise LaunchError("no host answers")

    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_values(ConfigValues.from_dict({**MINIMAL, "nrom": 1}), world_size=fail)
    assert len(caught.value.problems) == 2
    assert "no host answers" in caught.value.problems


def test_processes_are_not_counted_with_a_broken_host_key() -> None:
    def count(args: RunnerArgs) -> int:
        raise AssertionError("must not be called")

    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_values(ConfigValues.from_dict({**MINIMAL, "hostfile": "/nowhere"}), world_size=count)
    assert len(caught.value.problems) == 1


def test_a_worker_reads_the_arguments_it_is_given() -> None:
    args = build(2)
    assert NeoXArgs.consume_neox_args(["--local_rank=1", "--neox-args", encode(args)]) == args


def test_a_worker_without_a_launcher_reads_config_files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in MINIMAL.items()))
    monkeypatch.setenv("WORLD_SIZE", "2")
    args = NeoXArgs.consume_neox_args([str(path), "num_layers=2"])
    assert (args.num_layers, args.global_num_gpus) == (2, 2)


@pytest.mark.parametrize("words", [[], ["--wrong"]])
def test_a_worker_without_a_config_says_what_it_needs(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected config files or --neox-args"):
        NeoXArgs.consume_neox_args(words)


def test_every_key_has_a_description() -> None:
    short = [key for key in NeoXArgs.model_fields if len(attribute_doc(NeoXArgs, key)) < 20]
    assert not short
