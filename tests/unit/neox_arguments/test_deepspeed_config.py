from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from megatron.neox_arguments.deepspeed_config import build_deepspeed_config
from megatron.neox_arguments.keys.sections import LEGACY, SECTIONS
from tests.unit.neox_arguments.minimal import build


def test_the_whole_config_of_a_run() -> None:
    args = build(
        4, precision="bfloat16", gradient_accumulation_steps=3, zero_optimization={"stage": 2, "cpu_offload": False}
    )
    assert build_deepspeed_config(args) == {
        "train_batch_size": 24,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 3,
        "gradient_clipping": 1.0,
        "zero_optimization": {
            "stage": 2,
            "reduce_scatter": True,
            "contiguous_gradients": False,
            "reduce_bucket_size": 500_000_000,
            "allgather_bucket_size": 500_000_000,
        },
        "zero_allow_untested_optimizer": True,
        "data_types": {"grad_accum_dtype": "fp32"},
        "prescale_gradients": False,
        "gradient_predivide_factor": 1.0,
        "pipeline": {"use_reentrant": False, "pipe_partitioned": False, "grad_partitioned": False},
        "steps_per_print": 10,
        "wall_clock_breakdown": False,
        "dump_state": False,
        "bf16": {"enabled": True},
    }


@pytest.mark.parametrize(("stage", "effective"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_stage_zero_runs_as_stage_one(stage: int, effective: int) -> None:
    assert build_deepspeed_config(build(zero_stage=stage))["zero_optimization"]["stage"] == effective


def test_fp16_section_holds_only_what_deepspeed_knows() -> None:
    section = {"enabled": True, "fp16": True, "loss_scale": 0, "loss_scale_window": 500, "type": "fp16"}
    config = build_deepspeed_config(build(fp16=section))
    assert config["fp16"] == {"enabled": True, "loss_scale": 0, "loss_scale_window": 500}
    assert "bf16" not in config


def test_settings_of_deepspeed_pass_through() -> None:
    extra: dict[str, Any] = {"comms_logger": {"enabled": True}, "seq_parallel_communication_data_type": "fp32"}
    config = build_deepspeed_config(
        build(fp32_allreduce=True, deepspeed_extra_args=extra, flops_profiler={"enabled": True}, dump_state=True)
    )
    assert config["communication_data_type"] == "fp32"
    assert config["flops_profiler"] == {"enabled": True}
    assert config["dump_state"] is True
    assert {key: config[key] for key in extra} == extra


@pytest.mark.parametrize(
    ("section", "file", "class_name"),
    [
        ("zero_optimization", "runtime/zero/config.py", "DeepSpeedZeroConfig"),
        ("fp16", "runtime/precision_config.py", "DeepSpeedFP16Config"),
        ("bf16", "runtime/precision_config.py", "DeepSpeedBF16Config"),
    ],
)
def test_known_keys_are_those_of_the_installed_deepspeed(section: str, file: str, class_name: str) -> None:
    spec = importlib.util.find_spec("deepspeed")
    if spec is None or spec.origin is None:
        pytest.skip("DeepSpeed is not installed")
    tree = ast.parse((Path(spec.origin).parent / file).read_text())
    (definition,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    assert set(_field_names(definition)) | LEGACY[section] == set(SECTIONS[section].model_fields)


def _field_names(definition: ast.ClassDef) -> list[str]:
    """Names under which a pydantic class takes its fields: the alias where there is one."""
    names = []
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            keywords = node.value.keywords if isinstance(node.value, ast.Call) else []
            aliases = [
                word.value.value for word in keywords if word.arg == "alias" and isinstance(word.value, ast.Constant)
            ]
            names.append(str(aliases[0]) if aliases else node.target.id)
    return names
