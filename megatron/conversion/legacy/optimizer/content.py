"""What one file says of an optimizer, in whichever of DeepSpeed's forms, as groups of runs.

    single_partition_of_fp32_groups     ZeRO 1 and 2, and the bf16 optimizer: this data rank's part of every group
    local_sub_partitions_of_fp32_groups ZeRO 1 before DeepSpeed 0.3.17 (GPT-NeoX 1): every so many values of a group are divided by themselves
    fp32_groups_flat                    fp16 without ZeRO: every group whole
    fp32_groups                         the same, with an optimizer that takes parameters one by one
    state, param_groups                 torch's own, in fp32 without ZeRO: the parameters are the model's

The state of torch's optimizer lies beside, with numbers for parameters, or as lists in the order of the runs ("elastic" checkpoints).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WEIGHT = "weight"
STEP = "step"

Run = Mapping[str, Tensor]
"""Tensors of one shape that belong together: "weight" in fp32, "exp_avg", ..."""


@dataclass(frozen=True)
class Content:
    """groups: of parameters with the same options, each in runs; steps: the optimizer's counts of its steps, as far as they were kept."""

    groups: tuple[tuple[Run, ...], ...]
    steps: frozenset[int]


def read_content(saved: Mapping[str, Any]) -> Content:
    """The content of an `optimizer_state_dict`, or of `optimizer` in a file without ZeRO. Raises ValueError with what is wrong with it."""
    if "fp32_flat_groups" in saved or _stage(saved) >= 3:
        raise ValueError("it is of ZeRO stage 3")
    weights = _weights(saved)
    states = saved.get("base_optimizer_state", saved.get("optimizer_state_dict", saved))
    grouped = _by_number(states) if isinstance(states, Mapping) else _by_place(states)
    if weights is None:
        weights = [[None] * len(group) for group in grouped]
    if [len(group) for group in weights] != [len(group) for group in grouped]:
        raise ValueError("its weights and its optimizer states are not of the same parameters")
    groups = tuple(
        tuple(_run(weight, state) for weight, state in zip(*pair, strict=True))
        for pair in zip(weights, grouped, strict=True)
    )
    # DeepSpeed's fused Adam counts in the state of a group's last parameter, and leaves those of the others at 0.
    found = [[state[STEP] for state in group if STEP in state] for group in grouped]
    counts = [max(of_group) for of_group in found if of_group]
    return Content(groups, frozenset(int(count) for count in counts or _steps_of_groups(saved, states)))


def _stage(saved: Mapping[str, Any]) -> int:
    stage = saved.get("zero_stage", 0)
    return int(getattr(stage, "arguments", (stage,))[0])  # DeepSpeed pickles a member of an enumeration


def _weights(saved: Mapping[str, Any]) -> list[list[Tensor | None]] | None:
    """The fp32 weights of every run of every group; None where the optimizer updates the model's own."""
    for key in ("single_partition_of_fp32_groups", "fp32_groups_flat"):
        if key in saved:
            return [[flat] for flat in saved[key]]
    for key in ("local_sub_partitions_of_fp32_groups", "fp32_groups"):
        if key in saved:
            return [list(group) for group in saved[key]]
    if "param_groups" in saved:
        return None
    raise ValueError(f"it holds none of the fp32 weights that are known ({', '.join(map(str, saved))})")


def _by_number(states: Mapping[str, Any]) -> list[list[Mapping[str, Any]]]:
    """torch's form: states by the numbers of parameters, and groups of such numbers."""
    return [[states["state"].get(number, {}) for number in group["params"]] for group in states["param_groups"]]


def _by_place(states: Sequence[Any]) -> list[list[Mapping[str, Any]]]:
    """The elastic form: a state for each group, or a list of them."""
    return [[state] if isinstance(state, Mapping) else list(state) for state in states]


def _steps_of_groups(saved: Mapping[str, Any], states: Any) -> list[Any]:
    """Where fused optimizers count: in the options of groups, which elastic checkpoints keep apart or not at all."""
    if isinstance(states, Mapping):
        return [group[STEP] for group in states["param_groups"] if STEP in group]
    return [saved["base_optimizer_state_step"]] if "base_optimizer_state_step" in saved else []


def _run(weight: Tensor | None, state: Mapping[str, Any]) -> Run:
    moments = {key: value for key, value in state.items() if torch.is_tensor(value) and key != STEP and value.dim() > 0}
    return moments if weight is None else {WEIGHT: weight.detach(), **moments}
