"""Older keys and values: every rule of the table, and files in the style of every vintage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.describe import override_lines
from megatron.neox_arguments.explaining.rewrite import rewrite
from megatron.neox_arguments.reading.legacy import modernise, translate
from megatron.neox_arguments.reading.legacy_rules import RULES
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.reading.yaml_text import parse_yaml
from tests.unit.neox_arguments.minimal import build, problem, problems

VINTAGES = Path(__file__).parent / "vintages"
MODEL = "2021_02_dashes.yml"
PARTS = ("2021_04_cluster.yml", "2021_06_generation.yml", "2021_09_sparse.yml")
"""Files that go with a model file."""


def files_of(name: str) -> list[str]:
    return [str(VINTAGES / part) for part in ([MODEL, name] if name in PARTS else [name])]


def modern(**config: Any) -> dict[str, Any]:
    values, _ = modernise(ConfigValues.from_dict(config))
    assert values.problems == ()
    return values.values


def refusal(**config: Any) -> str:
    (text,) = modernise(ConfigValues.from_dict(config))[0].problems
    return text


@pytest.mark.parametrize("name", sorted(path.name for path in VINTAGES.glob("*.yml")))
def test_files_of_every_vintage_load_and_mean_the_same_when_rewritten(name: str, tmp_path: Path) -> None:
    values = read_ymls(files_of(name))
    args = NeoXArgs.from_values(values, world_size=8, planning=True)
    new = tmp_path / "new.yml"
    new.write_text(rewrite(values))
    rewritten = read_ymls([str(new)])
    assert NeoXArgs.from_values(rewritten, world_size=8, planning=True) == args
    assert translate(rewritten) == ((), ())


@pytest.mark.parametrize("name", sorted({path.name for path in VINTAGES.glob("*.yml")} - {"2021_09_sparse.yml"}))
def test_files_of_every_vintage_would_run(name: str) -> None:
    NeoXArgs.from_values(read_ymls(files_of(name)), world_size=8)


def test_the_vintages_use_many_of_the_older_keys() -> None:
    found = set()
    for path in VINTAGES.glob("*.yml"):
        translations, refusals = translate(read_ymls([str(path)]))
        assert refusals == ()
        found |= {item.key for item in translations}
    assert len(found) >= 25


@pytest.mark.parametrize(
    ("older", "today"),
    [
        ({"save_interval": 500}, {"checkpoint_factor": 500}),
        ({"gas": 4}, {"gradient_accumulation_steps": 4}),
        ({"wandb_name": "007"}, {"wandb_run_name": "007"}),
        ({"label_data_paths": ["a"]}, {"train_label_data_paths": ["a"]}),
        ({"num_experts": 4, "expert_interval": 2}, {"moe_num_experts": 4, "moe_expert_interval": 2}),
        ({"out_seq_length": 64, "genfile": "a.txt"}, {"maximum_tokens": 64, "sample_output_file": "a.txt"}),
        ({"attention_type": "multiquery"}, {"num_kv_heads": 1}),
        ({"attention_type": "multihead", "num_attention_heads": 8}, {"num_attention_heads": 8, "num_kv_heads": 8}),
        ({"attention_type": "groupedquery", "num_kv_heads": 2}, {"num_kv_heads": 2}),
        ({"geglu": False}, {}),
        ({"mlp_type": "regular"}, {}),
        ({"openai_gelu": True, "bias_gelu_fusion": False}, {"bias_gelu_fusion": True}),
        ({"sparsity": "none"}, {}),
        ({"sparsity": "all"}, {"attention_config": [[["sparse_variable"], "all"]]}),
        ({"sparsity": "interspersed"}, {"attention_config": [[["global", "sparse_variable"], "all"]]}),
        ({"greedy": True, "temperature": 0.7}, {"temperature": 0.0, "top_k": 0, "top_p": 0.0}),
        ({"greedy": False, "temperature": 0.7}, {"temperature": 0.7}),
        ({"cpu_optimizer": True, "optimizer": {"type": "Adam"}}, {"optimizer": {"type": "cpu_adam"}}),
        ({"cpu_optimizer": False}, {}),
        ({"distribute_checkpointed_activations": True}, {"partition_activations": True}),
        ({"output_layer_parallelism": "row"}, {"output_layer_parallelism": "column"}),
        ({"output_layer_parallelism": "column"}, {"output_layer_parallelism": "column"}),
        ({"data_impl": "lazy"}, {"data_impl": "cached"}),
        ({"model_parallel_size": 0}, {"model_parallel_size": 1}),
        ({"model_parallel_size": "0"}, {"model_parallel_size": 1}),
        ({"moe_loss_coeff": "1e-1"}, {}),
        ({"data_path": ["a"]}, {"data_path": "a"}),
        ({"data_path": "a"}, {"data_path": "a"}),
        ({"num_samples": 0}, {"num_samples": 1}),
        ({"adam_beta1": 0.9, "detect_nvlink_pairs": True, "load_universal": True}, {}),
        ({"moe_type": "megablocks", "use_tutel": False, "moe_loss_coeff": 0.1}, {}),
        ({"gas": None, "save_interval": None}, {}),
    ],
)
def test_older_keys_become_todays(older: dict[str, Any], today: dict[str, Any]) -> None:
    assert modern(**older) == today


def test_warm_up_iterations_become_a_share_of_the_decay() -> None:
    assert modern(warmup_iters=500, train_iters=10_000)["warmup"] == 0.05
    assert modern(warmup_iters=500, train_iters=10_000, lr_decay_iters=5_000)["warmup"] == 0.1
    assert modern(warmup_iters="5e2", train_iters=10_000, lr_decay_fraction=0.5)["warmup"] == 0.1
    assert build(warmup_iters=20, warmup=None).warmup_steps == 20.0
    assert "it cannot be computed without train_iters" in refusal(warmup_iters=500)


def test_the_final_rate_becomes_the_rate_itself() -> None:
    assert modern(decay_lr_to=0.1, optimizer={"params": {"lr": "6e-4"}})["min_lr"] == 6e-5
    assert modern(decay_lr_to=0.1, lr=1e-3)["min_lr"] == 1e-4
    assert "it cannot be computed without optimizer.params.lr" in refusal(decay_lr_to=0.1)


def test_a_rate_from_the_command_line_counts_for_the_final_rate() -> None:
    values = parse_yaml("{decay_lr_to: 0.1, optimizer: {params: {lr: 1e-3}}}", source="a.yml")
    changed, _ = modernise(apply_overrides(values, ["lr=1e-2"]))
    assert changed.values["min_lr"] == 1e-3


@pytest.mark.parametrize("hidden_size", [64, 192, 512, 768, 1000, 4096, 5120, 8192])
def test_the_llama_mlp_keeps_its_width(hidden_size: int) -> None:
    args = build(hidden_size=hidden_size, num_attention_heads=4, mlp_type="llama", activation="silu")
    wanted = 8 * hidden_size // 3
    assert args.activation == "swiglu"
    assert not args.use_bias_in_mlp
    assert args.mlp_width % 256 == 0
    assert 0 <= args.mlp_width - wanted < 256
    assert build(mlp_type="llama", intermediate_size=1792, activation="silu").mlp_width == 1792


def test_what_replaces_a_key_yields_to_a_later_place() -> None:
    values = parse_yaml("{hidden_size: 64, mlp_type: llama, activation: silu, greedy: true}", source="a.yml")
    words = ["activation=swiglu", "intermediate_size=96", "temperature=0.7"]
    changed, _ = modernise(apply_overrides(values, words))
    assert changed.problems == ()
    assert (changed.values["activation"], changed.values["intermediate_size"]) == ("swiglu", 96)
    assert (changed.values["temperature"], changed.values["top_k"]) == (0.7, 0)
    assert any(line.startswith('"intermediate_size": 288 (a.yml:1:') for line in override_lines(changed))


def test_the_published_llama_width_is_met() -> None:
    assert build(hidden_size=4096, num_attention_heads=32, mlp_type="llama", activation="silu").mlp_width == 11008


def test_the_first_geglu_keeps_its_width() -> None:
    assert build(geglu=True).mlp_width == 4 * 64
    assert build(geglu=True).activation == "geglu"


def test_max_grad_norm_clips_unless_another_key_says_how() -> None:
    params = {"params": {"lr": 1e-3, "max_grad_norm": 0.5}}
    assert build(optimizer=params).gradient_clipping == 0.5
    assert build(optimizer=params, gradient_clipping=2.0).gradient_clipping == 2.0
    assert build(optimizer=params).optimizer_params == {}


@pytest.mark.parametrize(
    ("older", "way_out"),
    [
        ({"attention_type": "groupedquery"}, "give num_kv_heads"),
        ({"mlp_type": "llama", "activation": "mish", "hidden_size": 64}, "give a gated activation"),
        ({"sparsity": "some"}, "give attention_config"),
        ({"no_adamw": True}, "as in AdamW; remove it"),
        ({"apply_residual_connection_post_layernorm": True}, "BERT's order"),
        ({"moe_type": "deepspeed"}, "moe_num_experts"),
        ({"moe_token_dropping": True}, "no token is dropped"),
        ({"model_arch": "t5"}, "encoder"),
        ({"data_path": ["a", "b"]}, "give train_data_paths"),
        ({"zero_stage": "all"}, "give one of 0, 1, 2, 3"),
        ({"zero_stage": [0, 1]}, "give one of 0, 1, 2, 3"),
        ({"warmup_iters": "soon", "train_iters": 10}, "not a number"),
    ],
)
def test_what_cannot_be_said_today_is_refused_with_the_way_out(older: dict[str, Any], way_out: str) -> None:
    key = next(iter(older))
    text = refusal(**older)
    assert text.startswith(f'"{key}" is ')
    assert "this older key is not supported" in text
    assert way_out in text


def test_a_refused_key_is_one_of_all_problems() -> None:
    found = problems(moe_type="deepspeed", hidden_size=66)
    assert len(found) == 2
    assert found[0].startswith('"moe_type" is "deepspeed": this older key is not supported')


def test_errors_point_at_the_line_of_the_older_key() -> None:
    values = parse_yaml("num_layers: 2\n'save-interval': 0\n", source="a.yml")
    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_values(values)
    (text,) = [text for text in caught.value.problems if "checkpoint_factor" in text]
    assert text.startswith('"checkpoint_factor" is 0 (a.yml:2:')
    assert "'save-interval': 0" in text


def test_an_older_key_and_its_new_name_in_one_file_must_agree() -> None:
    text = "save-interval: 500\ncheckpoint_factor: 500\n"
    values, _ = modernise(parse_yaml(text, source="a.yml"))
    assert values.problems == ()
    values, _ = modernise(parse_yaml(text.replace("factor: 500", "factor: 100"), source="a.yml"))
    first, *_ = values.problems[0].splitlines()
    assert first == (
        '"save_interval" (a.yml:1:1) means checkpoint_factor: 500, but "checkpoint_factor" is 100 (a.yml:2:1): keep one of the two'
    )


@pytest.mark.parametrize(
    ("first", "second", "factor"),
    [("save-interval: 500", "checkpoint_factor: 100", 100), ("checkpoint_factor: 100", "save-interval: 500", 500)],
)
def test_between_files_the_later_name_wins_and_the_override_is_told(
    first: str, second: str, factor: int, tmp_path: Path
) -> None:
    paths = []
    for name, text in (("a.yml", first), ("b.yml", second)):
        paths.append(str(tmp_path / name))
        Path(paths[-1]).write_text(text)
    merged = read_ymls(paths)
    values, _ = modernise(merged)
    assert values.values == {"checkpoint_factor": factor}
    (line,) = override_lines(merged)
    assert line == f'"checkpoint_factor": {600 - factor} ({paths[0]}:1:1) -> {factor} ({paths[1]}:1:1)'


@pytest.mark.parametrize(
    ("text", "word", "key", "value"),
    [
        ("optimizer: {params: {lr: 1e-3}}", "lr=1e-4", "lr", 1e-4),
        ("lr: 1e-3", "optimizer.params.lr=1e-4", "lr", 1e-4),
        ("batch_size: 2", "train_micro_batch_size_per_gpu=8", "train_micro_batch_size_per_gpu", 8),
        ("train_micro_batch_size_per_gpu: 2", "batch-size=8", "train_micro_batch_size_per_gpu", 8),
        ("zero_optimization: {stage: 1}", "zero_stage=2", "zero_stage", 2),
        ("clip_grad: 1.0", "gradient_clipping=0.5", "gradient_clipping", 0.5),
    ],
)
def test_the_command_line_overrides_the_other_spelling(text: str, word: str, key: str, value: Any) -> None:
    model = "num_layers: 2\nhidden_size: 8\nnum_attention_heads: 2\nseq_length: 8\ntrain_iters: 1\n"
    batch = "" if "batch" in text else "train_batch_size: 8\n"
    values = apply_overrides(parse_yaml(f"{model}{batch}{text}\n", source="a.yml"), [word])
    assert getattr(NeoXArgs.from_values(values), key) == value
    assert len(override_lines(values)) == 1


def test_two_spellings_in_one_file_must_agree() -> None:
    assert "two ways to write the same thing" in problem(optimizer={"params": {"lr": 1e-3}}, lr=1e-4)


def test_strict_merge_refuses_the_same_key_under_two_names(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("save-interval: 500\nstrict_merge: true\n")
    (tmp_path / "b.yml").write_text("checkpoint_factor: 100\n")
    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_values(read_ymls([str(tmp_path / "a.yml"), str(tmp_path / "b.yml")]))
    assert [text for text in caught.value.problems if "strict_merge is on" in text and '"checkpoint_factor"' in text]


def test_what_is_read_already_is_left_alone() -> None:
    for name in (MODEL, "2024_03_continued.yml"):
        values, translations = modernise(read_ymls([str(VINTAGES / name)]))
        assert translations
        assert modernise(values) == (values, ())


def test_a_translation_is_a_sentence() -> None:
    ((translation,), _) = translate(parse_yaml("save-interval: 500", source="a.yml"))
    assert str(translation) == (
        '"save_interval" is 500 (a.yml:1:1): read as checkpoint_factor: 500; iterations between checkpoints'
    )


def test_the_rules_name_no_key_of_today_that_does_not_remain() -> None:
    today = set(NeoXArgs.model_fields)
    assert {key for key in RULES if key in today} == {key for key, rule in RULES.items() if rule.remains}
    for key, rule in RULES.items():
        assert rule.reason or rule.remains, key


def test_of_two_ways_to_give_data_the_later_wins_and_the_override_is_told(tmp_path: Path) -> None:
    lists = "train_data_paths: [a]\nvalid_data_paths: [b]\ntest_data_paths: [c]\ntrain_data_weights: [1]\n"
    for name, text in (("lists", lists), ("one", "data_path: corpus\n"), ("both", "data_path: corpus\n" + lists)):
        (tmp_path / f"{name}.yml").write_text(text)

    def merged(*names: str) -> ConfigValues:
        return modernise(read_ymls([str(tmp_path / f"{name}.yml") for name in names]))[0]

    one = merged("lists", "one")
    assert one.values == {"data_path": "corpus"}
    assert [override.key for override in one.overrides] == [line.partition(":")[0] for line in lists.splitlines()]
    assert 'lists.yml:1:1) -> "corpus"' in str(one.overrides[0])
    several = merged("one", "lists")
    assert set(several.values) == {line.partition(":")[0] for line in lists.splitlines()}
    assert [override.key for override in several.overrides] == ["data_path"]
    assert {"data_path", "train_data_paths"} <= merged("both").values.keys()
