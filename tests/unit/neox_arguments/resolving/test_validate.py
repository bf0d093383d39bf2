from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls
from megatron.neox_arguments.reading.yaml_text import parse_yaml
from megatron.neox_arguments.resolving.checks.pipeline import LAYERS
from megatron.planning.model.parameters import layer_shapes
from tests.unit.neox_arguments.minimal import MINIMAL, build, problem, problems

GIVEN_LISTS = {"train_data_paths": ["a", "b"], "valid_data_paths": ["v"], "test_data_paths": ["t"]}

ILLEGAL: list[tuple[dict[str, Any], list[str], str]] = [
    # (changes, keys the message names, part of the reason or fix)
    ({"zero_optimization": {"stage": 2}, "pipe_parallel_size": 2}, ["zero_optimization.stage", "pipe_parallel_size"], "set the stage to 1"),
    ({"zero_stage": 3, "pipe_parallel_size": 2}, ["zero_stage", "pipe_parallel_size"], "pipe_parallel_size to 0"),
    ({"zero_stage": 2, "moe_num_experts": 8}, ["zero_stage", "moe_num_experts"], "ZeRO 0 and 1"),
    ({"zero_stage": 3, "attention_config": [[["mamba"], "all"]]}, ["zero_stage", "attention_config"], "ZeRO 0 to 2"),
    ({"zero_stage": 3, "attention_config": [[["rwkv"], "all"]]}, ["zero_stage", "attention_config"], "ZeRO 0 to 2"),
    ({"partition_activations": True, "attention_config": [[["gmlp"], "all"]]}, ["partition_activations"], "set partition_activations to false"),
    ({"num_kv_heads": 2, "attention_config": [[["sparse_fixed"], "all"]]}, ["num_kv_heads"], "set num_kv_heads to 4"),
    ({"train_epochs": 2}, ["train_iters", "train_epochs"], "keep one of them"),
    ({"train_iters": None}, ["train_iters", "train_epochs"], "give train_iters"),
    ({"train_iters": None, "train_epochs": 1, "optimizer": {"type": "OneBitAdam"}}, ["train_iters"], "OneBitAdam needs train_iters"),
    ({"data_path": "d", **GIVEN_LISTS}, ["data_path", *GIVEN_LISTS], "keep data_path, or the lists"),
    ({"split": ".nan"}, ["split"], 'write them as in "969, 30, 1"'),
    ({"split": "1e400, 1"}, ["split"], 'write them as in "969, 30, 1"'),
    ({"pipe_partition_method": "unifrm"}, ["pipe_partition_method"], 'did you mean "uniform"'),
    ({"pipe_partition_method": "type:("}, ["pipe_partition_method"], "no regular expression"),
    ({"pipe_partition_method": "type:decoder"}, ["pipe_partition_method"], "as in type:transformer"),
    ({"train_data_paths": ["a"]}, ["train_data_paths", "valid_data_paths", "test_data_paths"], "give valid_data_paths and test_data_paths"),
    ({**GIVEN_LISTS, "train_data_weights": [1.0]}, ["train_data_weights", "train_data_paths"], "there is 1 weight for 2 datasets"),
    ({**GIVEN_LISTS, "train_data_weights": [0, 0]}, ["train_data_weights"], "one of them more"),
    ({"train_label_data_paths": ["l"]}, ["train_label_data_paths", "train_data_paths"], "give train_data_paths"),
    ({**GIVEN_LISTS, "train_label_data_paths": ["l"]}, ["train_label_data_paths"], "give 2, one for each dataset"),
    ({"data_path": "d", "valid_label_data_paths": ["l"]}, ["valid_label_data_paths", "data_path"], "valid_data_paths and test_data_paths in place"),
    ({**GIVEN_LISTS, "train_reward_data_paths": ["r", "s"]}, ["train_reward_data_paths", "pack_impl"], "set pack_impl to unpacked"),
    ({"allow_chopped": False}, ["allow_chopped", "pack_impl"], "set pack_impl to pack_until_overflow or unpacked"),
    ({"reset_attention_mask": True, "attention_config": [[["mamba"], "all"]]}, ["reset_attention_mask"], "only attention of type global, flash, flex"),
    ({"hidden_size": 66}, ["hidden_size", "num_attention_heads"], "set hidden_size to 64 or 68"),
    ({"num_kv_heads": 3}, ["num_kv_heads", "num_attention_heads"], "choose one of 1, 2, 4"),
    ({"max_position_embeddings": 16}, ["seq_length", "max_position_embeddings"], "to at least 32"),
    ({"pos_emb": "rotary", "rotary_pct": 0.2}, ["rotary_pct"], "set rotary_pct to 0.125"),
    ({"gpt_j_tied": True}, ["gpt_j_tied", "gpt_j_residual"], "set gpt_j_residual to true"),
    ({"fp16_lm_cross_entropy": True}, ["fp16_lm_cross_entropy", "precision"], "only possible with precision fp16"),
    ({"intermediate_size": 100, "expansion_factor": 4}, ["intermediate_size", "expansion_factor"], "keep intermediate_size"),
    ({"min_lr": 1.0}, ["min_lr", "lr"], "set min_lr to 0.0001"),
    ({"lr_decay_iters": 10, "lr_decay_fraction": 0.5}, ["lr_decay_iters", "lr_decay_fraction"], "keep one of them"),
    ({"split": "all"}, ["split"], "969, 30, 1"),
    ({"checkpoint_factor": 1, "checkpoint_scale": "log"}, ["checkpoint_factor", "checkpoint_scale"], "above 1"),
    ({"checkpoint_factor": 2.5}, ["checkpoint_factor"], "set it to 2 or 3"),
    ({"load": "/nowhere"}, ["load"], "set load_if_exists to true"),
    ({"hostfile": "/nowhere"}, ["hostfile"], "does not exist"),
    ({"include": "a", "exclude": "b"}, ["include", "exclude"], "remove exclude"),
    ({"deepspeed_extra_args": {"fp16": {}}}, ["deepspeed_extra_args.fp16"], "a key of its own"),
    ({"fp16": {"enabeld": True}}, ["fp16.enabeld"], 'did you mean "enabled"?'),
    ({"user_script": "train.py", "tokenizer_type": "HFTokenizer"}, ["data_path", "train_data_paths"], "training needs data"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "keys", "reason"), ILLEGAL)
def test_illegal_combinations_name_their_keys_and_the_way_out(
    changes: dict[str, Any], keys: list[str], reason: str
) -> None:
    world = 2 if changes.get("pipe_parallel_size") == 2 else 1
    matching = [message for message in problems(world, **changes) if reason in message]
    assert len(matching) == 1, problems(world, **changes)
    assert all(f'"{key}" is ' in matching[0] for key in keys)


PARALLEL: list[tuple[int, dict[str, Any], str]] = [
    (3, {"model_parallel_size": 3, "hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 96}, "use 3 or 6"),
    (4, {"model_parallel_size": 4, "num_kv_heads": 2}, '"num_kv_heads" is 2'),
    (2, {"model_parallel_size": 2, "intermediate_size": 33}, "set mlp_multiple_of to 2"),
    (2, {"model_parallel_size": 2, "sequence_parallel": True, "seq_length": 33}, "use 32 or 34 tokens"),
    (5, {"pipe_parallel_size": 5}, "use at most 4 stages"),
    (3, {"context_parallel_size": 3}, "use 30 or 33 tokens, or set context_parallel_size to 2 or 4"),
    (8, {"context_parallel_size": 8}, "set context_parallel_size to 4, or num_attention_heads to 8"),
    (
        8,
        {"context_parallel_size": 4, "model_parallel_size": 2},
        "2 query heads of a tensor rank; set context_parallel_size to 2",
    ),
    (
        4,
        {"context_parallel_size": 2, "model_parallel_size": 2, "sequence_parallel": True, "seq_length": 34},
        "use 32 or 36 tokens",
    ),
    (2, {"context_parallel_size": 2, "attention_config": [[["mamba"], "all"]]}, "not built for mamba"),
    (3, {"context_parallel_size": 2}, "(pipeline stages x context ranks x tensor ranks); use 2 or 4 processes"),
]


@pytest.mark.parametrize(("world", "changes", "reason"), PARALLEL)
def test_illegal_layouts_are_refused(world: int, changes: dict[str, Any], reason: str) -> None:
    assert any(reason in message for message in problems(world, **changes))


def test_places_of_all_keys_involved_are_named() -> None:
    text = "".join(f"{key}: {value}\n" for key, value in {**MINIMAL, "max-position-embeddings": 8}.items())
    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_values(parse_yaml(text, source="a.yml"))
    (message,) = caught.value.problems
    assert message.startswith('"seq_length" is 32 (a.yml:4:13), "max_position_embeddings" is 8 (a.yml:7:26): ')


@pytest.mark.parametrize("content", ["latest", "global_step10"])
def test_an_existing_checkpoint_is_accepted(tmp_path: Path, content: str) -> None:
    (tmp_path / content).mkdir() if "step" in content else (tmp_path / content).write_text("global_step10")
    assert build(load=str(tmp_path)).load == str(tmp_path)


def test_an_empty_checkpoint_folder_is_refused_unless_allowed(tmp_path: Path) -> None:
    assert "there is no checkpoint to load: the directory is empty" in problem(load=str(tmp_path))
    assert build(load=str(tmp_path), load_if_exists=True).load_if_exists


def test_a_file_and_a_name_that_no_directory_can_have_are_refused_without_the_way_that_would_not_help(
    tmp_path: Path,
) -> None:
    (tmp_path / "weights").write_text("")
    found = problem(load=str(tmp_path / "weights"))
    assert "it is a file, not a directory; give a directory of checkpoints, or remove the key" in found
    assert "it cannot be looked into (File name too long); correct the path" in problem(load=f"/{'long' * 100}")


def test_strict_merge_refuses_overrides_between_files_only(tmp_path: Path) -> None:
    lines = "".join(f"{key}: {value}\n" for key, value in MINIMAL.items())
    (tmp_path / "a.yml").write_text(lines)
    (tmp_path / "b.yml").write_text("num-layers: 8\nstrict_merge: true\n")
    values = read_ymls(["a", "b"], directory=str(tmp_path))
    with pytest.raises(ConfigError, match='"num_layers" is written in two files and strict_merge is on'):
        NeoXArgs.from_values(values)
    alone = apply_overrides(read_ymls(["a"], directory=str(tmp_path)), ["strict_merge=true", "num_layers=8"])
    assert NeoXArgs.from_values(alone).num_layers == 8


UNBUILT: list[tuple[dict[str, Any], str]] = [
    (
        {"moe_num_experts": 8},
        '"moe_num_experts" is 8: mixture of experts is not supported yet; remove the key or set it to 1',
    ),
    ({"te_fp8_wgrad": False}, "is not supported yet; remove the key or set it to true"),
    ({"te_fp8_amax_history_len": 2}, "scaling fp8 by earlier steps"),
    ({"pos_emb": "rpe"}, 'position embedding "rpe" is not supported yet; choose one of learned, rotary'),
    ({"optimizer": {"type": "Lion"}}, 'optimizer "lion" is not supported yet; choose one of adam, adamw'),
    ({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}, "weights in host memory"),
    ({"zero_optimization": {"stage": 3, "cpu_offload_param": True}}, "weights in host memory"),
    ({"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}, 'set it to "cpu"'),
    ({"zero_optimization": {"offload_optimizer": {"device": "cpu", "ratio": 0.5}}}, "set it to 1.0"),
    ({"zero_optimization": {"cpu_offload": True, "zenflow": {"topk_ratio": 0.1}}}, "ZenFlow needs"),
    ({"zero_optimization": {"cpu_offload": True, "offload_optimizer": {"device": "none"}}}, "remove cpu_offload"),
    ({"dpo_fp32": False}, "remove the key or set it to true"),
    ({"wandb": {"enabled": True}}, "(use_wandb has all metrics) is not supported yet; remove the key"),
    ({"deepspeed": False, "zero_optimization": {"cpu_offload": True}}, "only DeepSpeed can do it"),
    ({"contiguous_checkpointing": True}, "expandable_segments"),
    ({"amp": {"enabled": True}}, "not supported yet"),
    ({"do_train": True}, "only running programs set it"),
    (
        {"mup_init_scale": 2.0, "use_mup": True},
        "maximal update parametrisation is not supported yet; remove these keys",
    ),
    ({"data_impl": "cached"}, "the format before mmap is not supported yet"),
    ({"train_impl": "dpo"}, 'training objective "dpo" is not supported yet'),
]


@pytest.mark.parametrize(("changes", "message"), UNBUILT)
def test_features_that_are_not_built_are_refused(changes: dict[str, Any], message: str) -> None:
    assert message in problem(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_wandb": False},
        {"use_wandb": None},
        {"wandb": {"enabled": False}},
        {"zero_optimization": {"stage": 1, "cpu_offload": False, "offload_param": {"device": "none"}}},
        {"curriculum_learning": {"enabled": False}},
        {"train_label_data_paths": []},
        {"data_impl": "mmap"},
        {"moe_num_experts": 1, "scaled_upper_triang_masked_softmax_fusion": True, "rope_fusion": True},
        {"partition_activations": True, "checkpoint_in_cpu": True, "synchronize_each_layer": True},
    ],
)
def test_switched_off_features_and_hints_are_accepted(changes: dict[str, Any]) -> None:
    build(**changes)


def test_the_layers_of_a_partition_are_those_of_the_model() -> None:
    names = {layer.name for layer in layer_shapes(build(), vocab_size=128)}
    assert names == set(LAYERS)
