"""Layouts and trainings as values, and the pairs of layouts between which a training is carried over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from tests.distributed.matrix.cell import ONE, Cell, Grid

HALF, WHOLE = 10, 20
VOCABULARY = 512  # of the tokenizer that takes bytes for tokens

# Under ZeRO 3 matrices are divided, biases and gains are whole on every rank, and there are several sub-groups.
DIVIDE_LARGE = {"stage3_param_persistence_threshold": 200, "sub_group_size": 20_000}


@dataclass(frozen=True)
class Layout:
    """What may change between two starts of a run: how it is cut, over processes and in time.

    vocabulary_multiple: rows of the vocabulary are padded to a multiple of it and of the tensor ranks; on_host: optimizer offloaded.
    """

    grid: Grid = ONE
    zero: int = 0
    on_host: bool = False
    accumulation: int = 2
    vocabulary_multiple: int = 4
    partition: str = "type:transformer"
    recompute: int = 0

    def __str__(self) -> str:
        words = {
            "zero": f"ZeRO {self.zero}",
            "on_host": "offload",
            "accumulation": f"accumulation {self.accumulation}",
            "vocabulary_multiple": f"vocabulary of {self.padded_vocabulary}",
            "partition": f"by {self.partition}",
            "recompute": f"recompute {self.recompute}",
        }
        said = [words[each.name] for each in fields(self)[1:] if getattr(self, each.name) != each.default]
        return ", ".join([str(self.grid), *said])

    @property
    def padded_vocabulary(self) -> int:
        """Rows of the vocabulary on all tensor ranks together."""
        multiple = self.vocabulary_multiple * self.grid.tensor
        return -(-VOCABULARY // multiple) * multiple


@dataclass(frozen=True)
class Training:
    """What is trained, and how: the same before and after. settings: further keys."""

    name: str
    precision: str = "fp32"
    tied: bool = False
    heads: str = "multi"
    dropout: float = 0.0
    clipping: float = 0.05
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Pair:
    """A training that runs in the layout `first`, and from a checkpoint in the middle on in `second`."""

    training: Training
    first: Layout
    second: Layout

    def __str__(self) -> str:
        return f"{self.training}: {self.first} -> {self.second}"


LAYOUTS = {
    "one": Layout(),
    "pipe x tensor": Layout(Grid(pipe=2, tensor=2), vocabulary_multiple=5, partition="type:transformer|norm|head"),
    "data, ZeRO 1": Layout(Grid(data=2), zero=1, accumulation=4),
    "context x tensor": Layout(Grid(context=2, tensor=2, in_sequence=True), zero=2, vocabulary_multiple=24),
    "data 4, ZeRO 3": Layout(Grid(data=4), zero=3),
    "pipe": Layout(Grid(pipe=2), accumulation=4, partition="parameters", recompute=1),
    "tensor": Layout(Grid(tensor=2), vocabulary_multiple=100),
    "data x tensor": Layout(Grid(data=2, tensor=2), zero=1, on_host=True),
    "pipe 4": Layout(Grid(pipe=4), vocabulary_multiple=7, partition="uniform"),
    "data, ZeRO 3": Layout(Grid(data=2), zero=3, on_host=True, vocabulary_multiple=5),
    "tensor 4": Layout(Grid(tensor=4), zero=2, vocabulary_multiple=24),
    "context": Layout(Grid(context=2), zero=1),
    "pipe x data": Layout(Grid(pipe=2, data=2), zero=1, partition="uniform"),
    "one, offloaded": Layout(zero=2, on_host=True, vocabulary_multiple=24),
    "data 4, ZeRO 2": Layout(Grid(data=4), zero=2, accumulation=4),
    "pipe x tensor, offloaded": Layout(
        Grid(pipe=2, tensor=2, in_sequence=True), zero=1, on_host=True, partition="parameters"
    ),
    "data x tensor, ZeRO 3": Layout(Grid(data=2, tensor=2), zero=3, vocabulary_multiple=7),
    "one stage x tensor": Layout(Grid(pipe=1, tensor=2), zero=1, recompute=2, vocabulary_multiple=5),
    "data x context, ZeRO 3": Layout(Grid(data=2, context=2), zero=3),
}

WARM_UP = {"warmup": 0.7}
RAMP = {"rampup_batch_size": [8, 8, 104]}  # ends with step 13
GROWING_SCALE = {"fp16": {"enabled": True, "initial_scale_power": 4, "loss_scale_window": 4, "hysteresis": 1}}

TRAININGS = {
    "dropout": Training("fp32, tied, dropout, in warm-up", tied=True, dropout=0.2, settings=WARM_UP),
    "ramp": Training(
        "fp32, grouped heads, in a ramp of batches, not clipped", heads="grouped", clipping=0.0, settings=RAMP
    ),
    "fp64": Training("fp64, tied, grouped heads, dropout, in a ramp", "fp64", True, "grouped", 0.2, settings=RAMP),
    "fp64 plain": Training("fp64, in warm-up", "fp64", settings=WARM_UP),
    "bf16": Training("bf16, tied, grouped heads", "bfloat16", True, "grouped"),
    "fp16": Training("fp16, growing loss scale, dropout", "fp16", dropout=0.2, settings=GROWING_SCALE),
}

# By training: a layout it begins in, and those it goes on in. The first run of each serves all its pairs.
QUICK: dict[str, tuple[str, tuple[str, ...]]] = {
    "dropout": ("pipe x tensor", ("one", "pipe 4", "data, ZeRO 3", "context", "data, ZeRO 1", "tensor")),
    "ramp": ("data, ZeRO 1", ("one, offloaded", "pipe", "tensor 4", "pipe x data", "one stage x tensor", "one")),
    "fp64": ("pipe 4", ("tensor", "one", "data 4, ZeRO 2", "pipe x data")),
    "fp64 plain": ("data, ZeRO 3", ("one, offloaded", "pipe", "data x tensor", "pipe x tensor, offloaded")),
    "bf16": ("pipe", ("data, ZeRO 1", "one", "pipe x tensor")),
    "fp16": ("tensor", ("one, offloaded", "pipe", "context")),
}
STRIDES = (2, 3, 5, 7, 11, 13)
"""By training, how far down in LAYOUTS the pairs lie that are not quick."""


def settings(training: Training, layout: Layout) -> dict[str, Any]:
    """What a user would write, without places."""
    cell = Cell(
        layout.grid,
        zero=layout.zero,
        partition=layout.partition,
        recompute=layout.recompute,
        accumulation=layout.accumulation,
        precision=training.precision,
        tied=training.tied,
        heads=training.heads,
        dropout=training.dropout,
        clipping=training.clipping,
        positions="rotary",
        biases="biases of queries, keys, values",
    )
    zero: dict[str, Any] = {"stage": layout.zero, **(DIVIDE_LARGE if layout.zero == 3 else {})}
    if layout.on_host:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        **cell.settings(),
        "zero_optimization": zero,
        "make_vocab_size_divisible_by": layout.vocabulary_multiple,
        "use_bias_in_output_layer": not training.tied,
        "tokenizer_type": "CharLevelTokenizer",
        "train_iters": WHOLE,
        "checkpoint_factor": HALF,
        "split": "100,0,0",
        "eval_iters": 0,
        "num_workers": 0,
        "log_interval": 1,
        **training.settings,
    }


@cache
def quick_pairs() -> tuple[Pair, ...]:
    """A selection in which every size, ZeRO stage and feature stands."""
    return tuple(
        Pair(TRAININGS[training], LAYOUTS[first], LAYOUTS[second])
        for training, (first, others) in QUICK.items()
        for second in others
    )


@cache
def all_pairs() -> tuple[Pair, ...]:
    """The quick ones, and others such that each layout is left, and each is gone on with."""
    layouts = list(LAYOUTS.values())
    others = (
        Pair(training, layouts[index], layouts[(index + stride) % len(layouts)])
        for number, (training, stride) in enumerate(zip(TRAININGS.values(), STRIDES, strict=True))
        for index in range(number, len(layouts), len(TRAININGS))
    )
    return tuple(dict.fromkeys((*quick_pairs(), *others)))
