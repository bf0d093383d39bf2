from __future__ import annotations

from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments import derive
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.derive import is_checkpoint_iteration
from tests.unit.neox_arguments.minimal import build, problem, problems


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((64, 4, None), (64, 4, 2)),
        ((64, None, 2), (64, 4, 2)),
        ((None, 4, 2), (64, 4, 2)),
        ((64, None, None), (64, 8, 1)),
        ((None, 4, None), (32, 4, 1)),
        ((64, 4, 2), (64, 4, 2)),
    ],
)
def test_two_batch_sizes_give_the_third(given: tuple[int | None, ...], expected: tuple[int, ...]) -> None:
    sizes = derive.derive_batch_sizes(*given, data_parallel_size=8)
    assert (sizes.train, sizes.micro, sizes.accumulation) == expected


def test_batch_sizes_that_disagree_are_told_with_the_right_accumulation() -> None:
    message = problem(8, train_batch_size=64, train_micro_batch_size_per_gpu=4, gradient_accumulation_steps=3)
    assert "4 x 3 x 8 (data-parallel size) is 96, not 64; set gradient_accumulation_steps to 2" in message


def test_a_batch_that_does_not_divide_names_the_nearest_ones() -> None:
    assert "set it to 64 or 96" in problem(8, train_batch_size=70, train_micro_batch_size_per_gpu=4)


def test_batch_sizes_count_data_parallel_copies_only() -> None:
    args = build(8, pipe_parallel_size=2, model_parallel_size=2, gradient_accumulation_steps=3)
    assert (args.data_parallel_size, args.train_batch_size) == (2, 12)


def test_batch_size_is_another_name_of_the_micro_batch() -> None:
    assert build(batch_size=5, train_micro_batch_size_per_gpu=None).train_batch_size == 5
    assert "two ways to write the same thing" in problem(batch_size=5)


def test_processes_must_divide_into_whole_copies() -> None:
    message = problem(6, pipe_parallel_size=2, model_parallel_size=2)
    assert "take 4 each (pipeline stages x tensor ranks); use 4 or 8 processes" in message


def test_world_size_must_agree_with_what_is_written() -> None:
    assert build(4, global_num_gpus=4).world_size == 4
    assert "2 processes will run" in problem(2, global_num_gpus=4)


@pytest.mark.parametrize(
    ("keys", "precision"),
    [
        ({}, "fp32"),
        ({"precision": "bfloat16"}, "bfloat16"),
        ({"fp16": {"enabled": True}}, "fp16"),
        ({"bf16": {"enabled": True}, "precision": "bfloat16"}, "bfloat16"),
        ({"fp16": {"enabled": False}}, "fp32"),
        ({"fp16": {"enabled": True, "type": "bfloat16"}}, "bfloat16"),
    ],
)
def test_precision_and_its_sections_agree(keys: dict[str, Any], precision: str) -> None:
    args = build(**keys)
    assert args.precision == precision
    assert args.fp16 is not None
    assert args.bf16 is not None
    assert args.fp16["enabled"] == (precision == "fp16")
    assert args.bf16["enabled"] == (precision == "bfloat16")


@pytest.mark.parametrize(
    "keys",
    [
        {"precision": "fp32", "fp16": {"enabled": True}},
        {"precision": "fp16", "fp16": {"enabled": False}},
        {"fp16": {"enabled": True}, "bf16": {"enabled": True}},
        {"precision": "fp16", "bf16": {"enabled": True}},
    ],
)
def test_contradicting_precisions_are_refused(keys: dict[str, Any]) -> None:
    assert all(f'"{key}' in problem(**keys) for key in keys)


def test_loss_scale_keys_and_section_are_one() -> None:
    args = build(fp16={"enabled": True, "hysteresis": 3}, loss_scale_window=500)
    assert (args.hysteresis, args.loss_scale_window, args.dynamic_loss_scale) == (3, 500, True)
    assert args.fp16 == {"enabled": True, "hysteresis": 3, "loss_scale_window": 500}
    assert build(precision="fp16", loss_scale=128).dynamic_loss_scale is False
    assert '"hysteresis" is 2' in problem(fp16={"enabled": True, "hysteresis": 3}, hysteresis=2)


def test_the_default_zero_section_is_replaced_as_a_whole() -> None:
    assert build().zero_optimization == {
        "stage": 0,
        "allgather_partitions": True,
        "reduce_scatter": True,
        "allgather_bucket_size": 500_000_000,
        "reduce_bucket_size": 500_000_000,
        "overlap_comm": False,
        "contiguous_gradients": False,
    }
    args = build(zero_optimization={"stage": 1, "reduce_bucket_size": "5e7"})
    assert args.zero_stage == 1
    assert args.zero_reduce_bucket_size == 50_000_000
    assert "overlap_comm" not in args.zero_optimization


def test_zero_stage_is_another_way_to_write_the_section() -> None:
    assert build(zero_stage=3).zero_optimization["stage"] == 3
    message = problem(zero_stage=3, zero_optimization={"stage": 1})
    assert message.startswith('"zero_optimization.stage" is 1, "zero_stage" is 3: ')


def test_one_pipeline_stage_runs_sequentially_under_zero_two() -> None:
    assert build(pipe_parallel_size=1, zero_stage=2).pipe_parallel_size == 0
    assert build(pipe_parallel_size=1, zero_stage=1).is_pipe_parallel is True


def test_the_default_optimizer_is_adam() -> None:
    args = build()
    assert (args.optimizer_type, args.lr, args.weight_decay) == ("adam", 1e-3, 0.1)
    assert args.optimizer_params == {"betas": [0.9, 0.999], "eps": 1e-8}


def test_the_optimizer_section_gives_type_rate_and_decay() -> None:
    section = {"type": "AdamW", "params": {"lr": "6e-4", "betas": (0.9, 0.95), "eps": "1e-6", "weight_decay": 0.01}}
    args = build(optimizer=section)
    assert (args.optimizer_type, args.lr, args.weight_decay) == ("adamw", 6e-4, 0.01)
    assert args.optimizer_params == {"betas": [0.9, 0.95], "eps": 1e-6}


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"optimizer": {"type": "Adma"}}, 'choose one of adam, adamw (did you mean "adam"?)'),
        (
            {"optimizer": {"type": "Adam", "params": {"lr": "fast"}}},
            '"optimizer.params.lr" is "fast": expected a number',
        ),
        ({"optimizer": {"type": "Adam", "params": {"lr": 1e-3}}, "lr": 1e-4}, "two ways to write the same thing"),
        ({"optimizer": {"type": "Adam", "params": {"betas": [0.9]}}}, "expected two numbers"),
        ({"optimizer": {"type": "Adam"}, "optimizer_type": "adamw"}, "two ways to write the same thing"),
        ({"optimizer": {"type": "Adam", "parms": {}}}, 'is not a known key (did you mean "params"?)'),
    ],
)
def test_impossible_optimizers_are_refused(keys: dict[str, Any], part: str) -> None:
    assert part in problem(**keys)


def test_clip_grad_is_another_name_of_gradient_clipping() -> None:
    assert build().gradient_clipping == 1.0
    assert build(clip_grad=0.5).gradient_clipping == 0.5
    assert build(gradient_clipping=0).clip_grad == 0
    assert '"clip_grad" is 0.5' in problem(clip_grad=0.5, gradient_clipping=1.0)


def test_key_value_heads_and_positions_have_defaults() -> None:
    args = build()
    assert (args.num_kv_heads, args.max_position_embeddings, args.head_dim) == (4, 32, 16)


@pytest.mark.parametrize(
    ("config", "layers", "expected"),
    [
        (None, 3, "global global global"),
        ([[["global", "flash"], 2]], 4, "global flash global flash"),
        ([[["global"], 1], [["flash", "global"], "all"]], 4, "global flash global flash"),
        ([[["flash"], "all"]], 2, "flash flash"),
        (["flash", "global"], 2, "flash global"),
    ],
)
def test_attention_types_are_expanded(config: Any, layers: int, expected: str) -> None:
    assert " ".join(derive.derive_attention_types(config, num_layers=layers)) == expected


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ([[["global"], 3]], "describes 3 layers of 4"),
        ([["global", 4]], 'write each entry as [[types...], repeat] with a number or "all"'),
        ([[["global"], "every"]], 'write each entry as [[types...], repeat] with a number or "all"'),
        ([[["flahs"], "all"]], '"flahs" is not an attention type (did you mean "flash"?)'),
        ([[["mamba"], "all"]], '"mamba" is not supported yet; choose among global, flash'),
        ("global", "expected a list"),
    ],
)
def test_impossible_attention_configs_are_refused(config: Any, part: str) -> None:
    assert part in problem(attention_config=config)


@pytest.mark.parametrize(("vocabulary", "ranks", "rows"), [(50257, 1, 50304), (50257, 2, 50432), (50304, 1, 50304)])
def test_the_vocabulary_is_padded_for_the_tensor_ranks(vocabulary: int, ranks: int, rows: int) -> None:
    assert derive.derive_padded_vocab_size(vocabulary, divisible_by=128, model_parallel_size=ranks) == rows
    assert derive.padded_vocab_size(build(ranks, model_parallel_size=ranks), vocabulary) == rows


def test_a_model_has_a_row_for_each_token_and_more_where_the_config_says_so() -> None:
    assert derive.model_vocab_size(build(), 50277) == 50277
    assert derive.model_vocab_size(build(vocab_size=50304), 50277) == 50304
    assert derive.model_vocab_size(build(vocab_size=50304), 50304) == 50304
    sentence = r"is 50304, but the tokenizer has 50305 entries.*: set vocab_size to 50305 or more"
    with pytest.raises(ConfigError, match=sentence):
        derive.model_vocab_size(build(vocab_size=50304), 50305)


@pytest.mark.parametrize(
    ("activation", "keys", "width"),
    [
        ("swiglu", {"hidden_size": 4096, "intermediate_size": 32768, "mlp_multiple_of": 256}, 11008),
        ("swiglu", {"hidden_size": 4096, "intermediate_size": 14336, "mlp_multiple_of": 14336}, 14336),
        ("gelu", {"hidden_size": 768}, 3072),
        ("gelu", {"hidden_size": 768, "mlp_multiple_of": 1000}, 4000),
        ("gelu", {"hidden_size": 768, "expansion_factor": 3.5}, 2688),
        ("gelu", {"hidden_size": 768, "intermediate_size": 1000}, 1000),
        ("geglu", {"hidden_size": 768}, 1024),
    ],
)
def test_mlp_width(activation: str, keys: dict[str, Any], width: int) -> None:
    args = build(activation=activation, **keys)
    assert args.mlp_width == width
    assert args.gated_activation == (activation in ("swiglu", "geglu"))


@pytest.mark.parametrize(
    ("keys", "decay", "warmup"),
    [
        ({}, 100, 1.0),
        ({"lr_decay_iters": 50, "warmup": 0.1}, 50, 5.0),
        ({"lr_decay_fraction": 0.755, "warmup": 0.02}, 75, 1.5),
    ],
)
def test_decay_and_warmup_lengths(keys: dict[str, Any], decay: int, warmup: float) -> None:
    args = build(**keys)
    assert (args.lr_decay_steps, args.warmup_steps) == (decay, pytest.approx(warmup))


def test_epochs_are_counted_in_iterations_later() -> None:
    args = build(train_iters=None, train_epochs=2)
    assert args.train_iters is None
    assert args.with_train_iters(70).lr_decay_steps == 70


@pytest.mark.parametrize(
    ("norm", "epsilon"),
    [("layernorm", 1e-5), ("rmsnorm", 1e-6), ("scalenorm", 1e-4), ("non_parametric_layernorm", 1e-5)],
)
def test_norm_epsilon_is_that_of_the_norm(norm: str, epsilon: float) -> None:
    assert build(norm=norm, rms_norm_epsilon=1e-6, scalenorm_epsilon=1e-4).norm_epsilon == epsilon


def test_text_generation_follows_the_input_file() -> None:
    assert build().text_gen_type == "unconditional"
    assert build(sample_input_file="prompts.txt").text_gen_type == "input-file"
    assert build(sample_input_file="prompts.txt", text_gen_type="interactive").text_gen_type == "interactive"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"checkpoint_factor": 30}, [30, 60, 90, 100]),
        ({"checkpoint_factor": 30, "extra_save_iters": [0, 7]}, [0, 7, 30, 60, 90, 100]),
        ({"checkpoint_factor": 3, "checkpoint_scale": "log"}, [1, 3, 9, 27, 81, 100]),
        ({"checkpoint_factor": 2.5, "checkpoint_scale": "log"}, [1, 2, 6, 15, 39, 97, 100]),
        ({}, [100]),
    ],
)
def test_checkpoint_iterations(keys: dict[str, Any], expected: list[int]) -> None:
    args = build(**keys)
    assert [iteration for iteration in range(101) if is_checkpoint_iteration(args, iteration)] == expected


def test_generation_needs_no_training_keys() -> None:
    args = build(
        user_script="generate.py",
        load="hf:organisation/model",
        train_micro_batch_size_per_gpu=None,
        train_iters=None,
        tokenizer_type="CharLevelTokenizer",
    )
    assert args.train_micro_batch_size_per_gpu == 1


def test_fp32_allreduce_sets_the_communication_format() -> None:
    assert build(fp32_allreduce=True).communication_data_type == "fp32"
    assert '"communication_data_type" is "bf16"' in problem(fp32_allreduce=True, communication_data_type="bf16")


def test_a_derivation_that_fails_is_reported_once() -> None:
    assert len(problems(3, pipe_parallel_size=2, train_batch_size=7)) == 1


def test_a_pure_rule_raises_a_sentence_of_its_own() -> None:
    with pytest.raises(Conflict, match="global_num_gpus, pipe_parallel_size: 3 processes do not divide"):
        derive.derive_data_parallel_size(3, pipe_parallel_size=2, model_parallel_size=1)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "ranks", "copies"),
    [(8, 8, 4, 1), (8, 4, 4, 1), (8, 2, 4, 2), (8, 1, 8, 8), (12, 6, 4, 2), (12, 4, 6, 3), (16, 4, 1, 1)],
)
def test_key_heads_are_copied_until_every_rank_has_whole_groups(
    heads: int, kv_heads: int, ranks: int, copies: int
) -> None:
    assert derive.derive_key_head_copies(heads, kv_heads, ranks=ranks) == copies


def test_context_ranks_are_no_copies_of_the_model() -> None:
    args = build(8, context_parallel_size=2, model_parallel_size=2, train_micro_batch_size_per_gpu=3)
    assert (args.data_parallel_size, args.train_batch_size) == (2, 6)


def test_several_hosts_need_a_launcher_over_the_network(tmp_path: Any) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# machines\nalpha slots=2\nbeta slots=2\n")
    assert build(hostfile=str(hostfile)).launcher == "pdsh"
    assert build(hostfile=str(hostfile), num_nodes=1).launcher == "local"
    assert build(hostfile=str(hostfile), launcher="local").launcher == "local"
    assert derive.derive_launcher(None, slurm=True, mpi=False, hosts=1) == "slurm"
    assert "keep one of the two" in problems(launcher="local", deepspeed_slurm=True)[0]


def test_an_allocation_of_several_machines_is_slurms_unless_a_hostfile_is_given(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("alpha slots=2\nbeta slots=2\n")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SLURMD_NODENAME", "alpha")
    assert build().launcher == "slurm"
    assert build(launcher="local").launcher == "local"
    assert build(num_nodes=1).launcher == "local"
    assert build(include="alpha@beta").launcher == "slurm"
    assert build(hostfile=str(hostfile)).launcher == "pdsh"
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    assert build().launcher == "local"
    assert build(force_multi=True).launcher == "slurm"


@pytest.mark.parametrize("machines", ["1", "2"])
def test_a_shell_of_salloc_on_the_login_machine_reaches_its_machines_by_slurm(
    machines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", machines)
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    assert build(num_nodes=1).launcher == "slurm"
    assert build(num_nodes=1, launcher="local").launcher == "local"
    monkeypatch.setenv("SLURMD_NODENAME", "alpha")
    assert build(num_nodes=1).launcher == "local"


def test_force_multi_takes_the_launcher_of_several_hosts_for_one(tmp_path: Any) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("alpha slots=2\n")
    assert build(hostfile=str(hostfile)).launcher == "local"
    assert build(hostfile=str(hostfile), force_multi=True).launcher == "pdsh"
    assert build(force_multi=True).launcher == "pdsh"
