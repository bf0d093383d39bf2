"""The sections of a configuration, and which keys each may hold.

DeepSpeed 0.19.8 refuses keys that it does not know with a traceback, so they are refused before anything starts.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from megatron.neox_arguments.keys.expected import choice, expectation
from megatron.neox_arguments.keys.types import Group
from megatron.registry import did_you_mean


class _Sections(Mapping[str, type[Group]]):
    """Imports the keys of a section when they are first asked for: most configurations have few sections, and importing takes time."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, section: str) -> type[Group]:
        module, _, name = self._places[section].partition(":")
        keys: type[Group] = getattr(importlib.import_module(f"megatron.neox_arguments.keys.{module}"), name)
        return keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


SECTIONS = _Sections(
    {
        "optimizer": "section_keys:OptimizerKeys",
        "optimizer.params": "section_keys:OptimizerParamsKeys",
        "zero_optimization": "zero_keys:ZeroKeys",
        "zero_optimization.offload_optimizer": "zero_keys:OffloadOptimizerKeys",
        "zero_optimization.offload_param": "zero_keys:OffloadParamKeys",
        "zero_optimization.leaf_module": "zero_keys:LeafModuleKeys",
        "fp16": "section_keys:Fp16Keys",
        "bf16": "section_keys:Bf16Keys",
        "data_types": "section_keys:DataTypesKeys",
        "rope_scaling": "section_keys:RopeScalingKeys",
        "loss_spike": "guards:LossSpikeKeys",
        "flops_profiler": "section_keys:FlopsProfilerKeys",
        "comms_logger": "section_keys:CommsLoggerKeys",
        "tensorboard": "section_keys:MonitorKeys",
        "csv_monitor": "section_keys:MonitorKeys",
        "wandb": "unbuilt_section_keys:WandbKeys",
        "curriculum_learning": "curriculum_keys:CurriculumKeys",
        "curriculum_learning.schedule_config": "curriculum_keys:CurriculumScheduleKeys",
        "soft_prompt_tuning": "unbuilt_section_keys:SoftPromptKeys",
        "sparsity_config": "unbuilt_section_keys:SparsityKeys",
        "scheduler": "unbuilt_section_keys:SchedulerKeys",
        "activation_checkpointing": "unbuilt_section_keys:ActivationCheckpointingKeys",
        "amp": "unbuilt_section_keys:AmpKeys",
        "checkpoint": "unbuilt_section_keys:CheckpointKeys",
    }
)
"""The keys of each section, as fields with types, defaults and descriptions; a section within a section by its path."""

LEGACY: dict[str, frozenset[str]] = {
    # Old DeepSpeed ignored what it did not know, so published configs hold these.
    "fp16": frozenset({"fp16", "bf16", "type"}),
    "bf16": frozenset(
        {"bf16", "fp16", "loss_scale", "loss_scale_window", "hysteresis", "min_loss_scale", "initial_scale_power"}
    ),
    "zero_optimization": frozenset({"cpu_offload", "cpu_offload_param", "cpu_offload_use_pin_memory", "legacy_stage1"}),
}
"""Keys that are accepted and left out of what DeepSpeed gets."""

CHECKED = (
    *("fp16", "bf16", "zero_optimization", "data_types"),
    *("flops_profiler", "comms_logger", "tensorboard", "csv_monitor"),
)
"""Sections that DeepSpeed gets: their keys and values must be ones that it takes."""

CURRICULUM = ("curriculum_learning", "curriculum_learning.schedule_config")

CLOSED = (*CHECKED, *CURRICULUM, "optimizer", "rope_scaling", "loss_spike")
"""Sections that may hold no keys but those of their fields."""


MOST_NAMED = 16
"""Keys of a section that a message lists."""

_EXPECTED = {"betas": "expected two numbers of at least 0 and below 1; write two such as [0.9, 0.95]"}
"""What to say of values with a shape of their own."""


def unknown_section_keys(section: str, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key path, reason) of every key in a section that it may not hold."""
    known = SECTIONS[section].model_fields
    for key in written:
        if key not in known:
            yield f"{section}.{key}", f" is not a known key{_hint(section, key)}"


def _hint(section: str, key: str) -> str:
    """What a key that is not known was meant to be: one with a similar name, one of a section within, or any."""
    known = sorted(SECTIONS[section].model_fields)
    within = f"{section}.params"
    if within in SECTIONS and key in SECTIONS[within].model_fields:
        return f"; move it into {within}"
    few = f"choose among {', '.join(known)}" if len(known) <= MOST_NAMED else "look it up in configs/neox_arguments.md"
    return did_you_mean(key, known) or f"; remove it, or {few}"


def wrong_section_values(section: str, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key path, reason) of every value in a section that has another type than its field, or lies out of its range. null is "not given"."""
    for key, value in written.items():
        if key in SECTIONS[section].model_fields and value is not None:
            reason = _objection(SECTIONS[section], key, value)
            if reason is not None:
                yield f"{section}.{key}", reason


def _objection(model: type[Group], key: str, value: Any) -> str | None:
    """Why a field cannot have this value. Text is no truth value here: whoever reads `enabled: "false"` would get it wrong."""
    annotation = model.model_fields[key].annotation
    if annotation in (bool, bool | None):
        return None if isinstance(value, bool) else "expected true or false; write one of the two"
    try:
        model.model_validate({key: value})
    except ValidationError as error:
        if get_origin(annotation) is Literal:
            return choice(value, list(map(str, get_args(annotation))))
        return _EXPECTED.get(key) or expectation(error.errors()[-1], key)
    return None


def for_deepspeed(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section that DeepSpeed takes."""
    kept = SECTIONS[section].model_fields.keys() - LEGACY.get(section, frozenset())
    return {key: value for key, value in values.items() if key in kept and value is not None}
