"""The ways to train that tools/benchmark/train.py compares: which program, with which settings, in which environment.

*Out of the box* is what a user of the program gets who asks for nothing: the process has the environment it was started in, without
variables of ours.

* transformers: what its Trainer does by default: fp32, the attention it chooses by itself (SDPA), the optimizer that its
  `TrainingArguments` name (AdamW, fused where torch has that), no compilation.
* litgpt: its `pretrain` recipe: Fabric in bf16-mixed (its default precision, autocast), the whole model compiled, cross entropy in
  chunks of 128, AdamW, fused on GPUs only.
* torchtitan: its Llama 3 recipe: FSDP2's mixed precision (bf16, reduced in fp32) on one device, selective recomputation, the loss in 8
  chunks, fused AdamW, nothing compiled.

*Tuned* is the fastest that the program's own settings reach here, in our environment (allocator, threads): bf16 mixed precision, fused
AdamW, SDPA; transformers eager and compiled as a whole; litgpt compiled and eager, cross entropy whole; torchtitan compiled by block as its
own switch does, without recomputation, the loss whole on CPUs (faster there), attention by cuDNN or flash on GPUs.

Ours *at its best* has every key of `AT_ITS_BEST`; *defaults* has none of them; *DeepSpeed* has all that go with its engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from megatron.environment import rank_defaults

AT_ITS_BEST: dict[str, Any] = {
    "deepspeed": False,
    "fused_linear_cross_entropy": True,
    "attention_config": [[["flash"], "all"]],
    "sdpa_backend": "auto",
    "compile": True,
}
ON_GPUS: dict[str, Any] = {
    "rope_fusion": True,
    "layernorm_fusion": True,
    "rmsnorm_fusion": True,
    "use_flashattn_swiglu": True,
    "bias_dropout_fusion": True,
}
"""As well on a GPU: kernels of ours. `bias_gelu_fusion` would be another model, with the tanh approximation."""


@dataclass(frozen=True)
class Way:
    """program: the module `train_PROGRAM` that builds the step; package: what must be installed; tuned: in our environment.

    only: the architecture it is for (`llama`), or the device (`cuda`); settings: what the program is told; on_gpus: as well on a GPU.
    """

    program: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tuned: bool = True
    only: str | None = None
    on_gpus: Mapping[str, Any] = field(default_factory=dict)

    @property
    def package(self) -> str | None:
        """What must be installed beside this project's requirements."""
        return None if self.program == "ours" else self.program

    def settings_on(self, device: str) -> dict[str, Any]:
        """What it is told there."""
        return {**self.settings, **(self.on_gpus if device == "cuda" else {})}

    def reason_against(self, *, gated: bool, device: str) -> str | None:
        """Why it cannot be measured here; None: it can."""
        if self.package and find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if self.only == "llama" and not gated:
            return f"{self.program} has no such model"
        if self.only == "cuda" and device != "cuda":
            return "needs a GPU"
        return None


OURS = "ours"

WAYS: dict[str, Way] = {
    OURS: Way("ours", AT_ITS_BEST, on_gpus=ON_GPUS),
    "ours, defaults": Way("ours"),
    "ours, DeepSpeed": Way("ours", {**AT_ITS_BEST, "deepspeed": True}, on_gpus=ON_GPUS),
    "ours, fp8": Way("ours", {**AT_ITS_BEST, "fp8": "tensorwise"}, only="cuda", on_gpus=ON_GPUS),
    "transformers": Way("transformers", {"precision": "fp32"}, tuned=False),
    "transformers, tuned": Way("transformers", {"precision": "bf16"}),
    "transformers, compiled": Way("transformers", {"precision": "bf16", "compile": True}),
    "litgpt": Way("litgpt", {"compile": True, "chunk": 128}, tuned=False),
    "litgpt, compiled": Way("litgpt", {"compile": True, "chunk": 0, "fused": True}),
    "litgpt, eager": Way("litgpt", {"compile": False, "chunk": 0, "fused": True}),
    "torchtitan": Way("torchtitan", {"recompute": True}, tuned=False, only="llama"),
    "torchtitan, compiled": Way(
        "torchtitan", {"compile": True, "whole_loss": True}, only="llama", on_gpus={"whole_loss": False}
    ),
}
"""By name; the first is what all others are compared with."""


def environment_of(way: Way, *, device: str) -> dict[str, str]:
    """The variables of its process: those a rank of ours starts with, or none of them."""
    ours = rank_defaults(local_world_size=1, accelerators=device != "cpu", environment={})
    theirs = {name: value for name, value in os.environ.items() if name not in ours}
    return {**theirs, **ours} if way.tuned else theirs
