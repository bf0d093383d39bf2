from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron.neox_arguments.explaining.differences import DIFFERENCES, OLDER_DEFAULTS
from megatron.neox_arguments.explaining.field_docs import GROUP_OF
from megatron.neox_arguments.explaining.judge import HARMLESS, judge
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.reading.yaml_text import parse_yaml


def judged(**config: Any) -> list[tuple[str, str]]:
    return [(verdict.key, verdict.kind) for verdict in judge(ConfigValues.from_dict(config))]


def detail(**config: Any) -> str:
    (verdict,) = judge(ConfigValues.from_dict(config))
    return verdict.detail


@pytest.mark.parametrize(
    ("config", "kind", "text"),
    [
        ({"num_layers": 12}, "same", ""),
        ({"num_gpus": None}, "same", ""),
        ({"optimizer": {"type": "Adam", "params": {"lr": "1e-3"}}}, "same", ""),
        ({"attention_config": [[["global", "flash"], "all"]]}, "same", ""),
        ({"scaled_masked_softmax_fusion": False}, "same", ""),
        ({"synchronize_each_layer": True}, "without effect", "slow"),
        ({"scaled_masked_softmax_fusion": True}, "same", ""),
        ({"use_cpu_initialization": True}, "without effect", "the result is the same"),
        ({"load_universal": True}, "without effect", "fits every layout"),
        ({"save_interval": 5}, "renamed", "read as checkpoint_factor: 5; "),
        ({"output_layer_parallelism": "row"}, "renamed", 'read as output_layer_parallelism: "column"'),
        ({"sliding_window_width": 128}, "changed", "GPT-NeoX lets it see one more"),
        ({"pos_emb": "alibi"}, "changed", "GPT-NeoX multiplies it by the layer's number where apply_query_key_layer"),
        ({"gpt_j_residual": True}, "changed", "once a tensor rank"),
        ({"gpt_j_residual": False}, "same", ""),
        ({"gradient_clipping": 1}, "changed", "does not clip"),
        ({"gradient_clipping": "1.0"}, "changed", "does not clip"),
        ({"gradient_clipping": 0.5}, "same", ""),
        ({"clip_grad": 0.5}, "changed", "never reads the key"),
        ({"soft_prompt_tuning": {"enabled": True}}, "not built yet", "soft prompt tuning is not supported yet"),
        ({"onnx_safe": True}, "not built yet", "remove the key or set it to false"),
        ({"do_train": True}, "unsupported", "only running programs set it"),
        ({"moe_type": "deepspeed"}, "unsupported", "moe_num_experts"),
        ({"nrom": "layernorm"}, "unknown", 'did you mean "norm"?'),
        ({"norm": "rmsnrom"}, "wrong", 'did you mean "rmsnorm"?'),
        ({"num_layers": "many"}, "wrong", "expected a whole number"),
        ({"save_interval": 0}, "wrong", "read as checkpoint_factor: 0; must be greater than 0"),
    ],
)  # fmt: skip
def test_every_kind_of_key_is_recognised(config: dict[str, Any], kind: str, text: str) -> None:
    ((key, found),) = judged(**config)
    assert (key, found) == (next(iter(config)), kind)
    assert text in detail(**config)
    assert (text == "") == (detail(**config) == "")


def test_keys_that_only_old_files_hold_in_sections_are_told_apart() -> None:
    assert judged(fp16={"enabled": True, "fp16": True}) == [("fp16", "same"), ("fp16.fp16", "without effect")]
    assert judged(zero_optimization={"stage": 1, "cpu_offload": False}) == [
        ("zero_optimization", "same"),
        ("zero_optimization.cpu_offload", "without effect"),
    ]
    assert judged(optimizer={"params": {"lr": 1e-3, "max_grad_norm": 0.5}}) == [
        ("optimizer", "same"),
        ("optimizer.params.max_grad_norm", "renamed"),
    ]


def test_a_misspelt_key_in_a_section_is_wrong() -> None:
    ((_, kind),) = judged(fp16={"enabeld": True})
    assert kind == "wrong"
    assert 'did you mean "enabled"?' in detail(fp16={"enabeld": True})


def test_an_older_key_of_a_feature_that_is_missing_is_not_built() -> None:
    for config in ({"optimizer_type": "sm3"}, {"optimizer": {"type": "SM3"}}, {"sm3": True}):
        assert judged(**config) == [(next(iter(config)), "not built yet")]
        assert '"sm3" is not supported yet' in detail(**config)


def test_keys_keep_their_order_and_places() -> None:
    verdicts = judge(parse_yaml("{seed: 1,\n 'save-interval': 5,\n nrom: a}", source="a.yml"))
    assert [f"{verdict.origin} {verdict.key}" for verdict in verdicts] == [
        "a.yml:1:2 seed",
        "a.yml:2:2 save_interval",
        "a.yml:3:2 nrom",
    ]


def test_conversions_look_up_what_they_need_in_the_other_files() -> None:
    part = ConfigValues.from_dict({"warmup_iters": 10})
    (alone,) = judge(part)
    (together,) = judge(part, among=ConfigValues.from_dict({"warmup_iters": 10, "train_iters": 100}))
    assert (alone.kind, together.kind) == ("unsupported", "renamed")
    assert "warmup: 0.1" in together.detail


def test_differences_are_about_keys_and_say_what_is_different() -> None:
    assert {*DIFFERENCES, *OLDER_DEFAULTS} <= set(GROUP_OF)
    assert all(difference.given or difference.absent for difference in DIFFERENCES.values())


def test_every_key_of_published_configs_is_understood(reference: Path) -> None:
    misspelt = ("configs/gmlp_small.yml", "optimizer")  # "1.0e_8" in the published file
    for name, config in json.loads((reference / "model_zoo.json").read_text()).items():
        for verdict in judge(ConfigValues.from_dict(config)):
            understood = verdict.kind in (*HARMLESS, "not built yet")
            assert understood or (name, verdict.key) == misspelt, (name, verdict)
