"""Files of optimizer states as DeepSpeed 0.3.15 wrote them for GPT-NeoX 1, made of full tensors of ours: cut by hand, not by the code that reads them.

Its ZeRO 1 laid the parameters of a group one behind the other, and dealt this vector out to the data-parallel ranks in runs of so many values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.engine.library import deepspeed

Kinds = Mapping[str, Mapping[str, Tensor]]
"""The tensors of a rank by kind ("weight", "exp_avg", ...) and by name, with the layer's number: "2.mlp.linear1.weight"."""


def loss_scaler() -> Any:
    """DeepSpeed's own, which is saved as an object."""
    scaler = deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler(4096.0, 1000, 1.0, 2, False)
    scaler.cur_iter, scaler.last_overflow_iter = 12, 5
    return scaler


def cut_stages(names: Sequence[str], first_of_second: int, *, tied: bool) -> list[list[str]]:
    """The names of two pipeline stages; a tied head is the embedding once more, in front."""
    numbers = [int(name.partition(".")[0]) for name in names]
    stages = [[], [name for name, number in zip(names, numbers, strict=True) if number == 0 and tied]]
    for name, number in zip(names, numbers, strict=True):
        stages[number >= first_of_second].append(name)
    return stages


def write_engine_file(folder: Path, model_rank: int, **further: Any) -> None:
    """The `mp_rank_...` file of a model-parallel rank."""
    content = {"module": None, "optimizer": None, "iteration": 12, "global_steps": 12, "skipped_steps": 1, **further}
    torch.save(content, folder / f"mp_rank_{model_rank:02d}_model_states.pt")


def write_old_zero(
    folder: Path, model_rank: int, kinds: Kinds, names: Sequence[str], *, data_ranks: int, run: int
) -> None:
    """The optimizer files of a model-parallel rank with these parameters, in runs of `run` values."""
    groups = [[name for name in names if not is_exempt(name)], [name for name in names if is_exempt(name)]]
    dealt = [_deal(kinds, group, data_ranks, run) for group in groups]
    for rank in range(data_ranks):
        own = [group[rank] for group in dealt]
        saved = {
            "loss_scaler": loss_scaler(),
            "dynamic_loss_scale": True,
            "overflow": False,
            # The fused optimizer counts its steps in the options of groups, which these files leave out.
            "base_optimizer_state": [[_moments(part) for part in group] for group in own],
            "zero_stage": 1,
            "partition_count": data_ranks,
            "num_comm_intervals_per_group": [len(group) for group in own],
            "local_sub_partitions_of_fp32_groups": [[part["weight"] for part in group] for group in own],
        }
        name = f"zero_pp_rank_{rank}_mp_rank_{model_rank:02d}_optim_states.pt"
        torch.save({"optimizer_state_dict": saved}, folder / name)


def is_exempt(name: str) -> bool:
    """Whether GPT-NeoX decays a parameter not."""
    return name.endswith(".bias") or "norm." in name


def _deal(kinds: Kinds, names: Sequence[str], ranks: int, run: int) -> list[list[dict[str, Tensor]]]:
    """By rank and turn, the runs of every kind; the last ones are shorter, or empty."""
    vectors = {kind: torch.cat([tensors[name].reshape(-1) for name in names]) for kind, tensors in kinds.items()}
    turns = math.ceil(len(vectors["weight"]) / (ranks * run))
    begins = [[(turn * ranks + rank) * run for turn in range(turns)] for rank in range(ranks)]
    return [
        [{kind: vector[begin : begin + run].clone() for kind, vector in vectors.items()} for begin in of_rank]
        for of_rank in begins
    ]


def _moments(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {kind: values for kind, values in part.items() if kind != "weight"}
