"""A layer as data: which number it has, how to build it, and what it shares with another layer.

One list of specs is the model. The sequential executor and the pipeline executor run the same list, and parameter names
(`"{number}.{name in the layer}"`) come from it, so both have the same names as existing GPT-NeoX checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import nn

from megatron.mpu.groups import SINGLE, Group

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bfloat16": torch.bfloat16}
"""What parameters are stored as, by the configured `precision`."""


class Placement(TypedDict):
    """Where a parameter lives, as the keywords that every sharded layer and `sharded_parameter` take."""

    group: Group
    dtype: torch.dtype
    device: torch.device | str


@dataclass(frozen=True)
class BuildContext:
    """Everything a layer needs at construction that is not the architecture.

    sequence_parallel: activations between the tensor-parallel layers are split along the sequence over `tensor_group`; the
    specs of `gpt.py` set it from the configuration; context_group: the ranks among which sequences are cut, before `tensor_group` cuts
    each piece again under sequence parallelism.
    """

    tensor_group: Group = SINGLE
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    sequence_parallel: bool = False
    context_group: Group = SINGLE

    @property
    def placement(self) -> Placement:
        """The keywords `group`, `dtype` and `device`."""
        return {"group": self.tensor_group, "dtype": self.dtype, "device": self.device}


@dataclass(frozen=True)
class LayerSpec:
    """One layer of the model.

    number: its number in GPT-NeoX checkpoints (0 embedding, 2.. blocks, L+3 final norm, L+4 head); name: its kind, which
    `pipe_partition_method: type:REGEX` matches; build: makes the module; tied_parameter: path of a parameter (such as
    `word_embeddings.weight`, the same in both modules) shared by two layers; tied_to: number of the layer that owns it, None when
    that is this layer itself.

    Every built module maps `(tokens [b, s], position_ids [b, s], cache)` (the embedding) or a `Stream` (all others) to a
    `Stream`, the head to logits.
    """

    number: int
    name: str
    build: Callable[[BuildContext], nn.Module]
    tied_to: int | None = None
    tied_parameter: str = ""
