"""Which parameter lies where in the vectors of an optimizer's groups.

With ZeRO, DeepSpeed writes it down in all but old versions (`param_shapes`). Else it follows from how GPT-NeoX makes its groups: first what is
decayed, then biases and norms, each in the order of the model's modules; everything is in one group where nothing is decayed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from megatron.checkpointing.state_file import Shapes

_NAME = re.compile(r"(?:module\.)?(?:sequential\.)?(\d+\..+)")
_TIED = re.compile(r"(?:module\.)?tied_modules\.\w+\.(.+)")


@dataclass(frozen=True)
class Slot:
    """The values of a parameter of `shape` begin at `start` in the vector of `group`."""

    group: int
    start: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """Where the next one may begin."""
        return self.start + math.prod(self.shape)


Slots = dict[str, Slot]
"""By the name in the files of layers, with the number of the layer before it: "2.attention.dense.weight"."""


def written_slots(
    param_shapes: Sequence[Mapping[str, Sequence[int]]], paddings: Sequence[Sequence[int]] | None
) -> Slots:
    """As `param_shapes` of a file says, a dictionary for each group; paddings: behind each parameter of each group, where there are any."""
    return _slots(
        [{layer_name(name): tuple(shape) for name, shape in group.items()} for group in param_shapes], paddings
    )


def layer_name(name: str) -> str:
    """A parameter's name in a model of GPT-NeoX as in the files of its layers; the module that a tied head shares is layer 0."""
    tied = _TIED.fullmatch(name)
    if tied:
        return f"0.{tied[1]}"
    match = _NAME.fullmatch(name)
    return match[1] if match else name


def derived_slots(parameters: Shapes, lengths: Sequence[Sequence[int]]) -> list[Slots]:
    """For each pipeline stage, as the rule says.

    parameters: of all layers, in the order of the model; lengths: of every stage, those of its groups, without padding. The stages follow
    from them. Raises ValueError when no cut of the layers has these lengths.
    """
    layers = [dict(group) for group in _layers(parameters)]
    embedding = layers[0] if layers else {}
    stages = []
    for stage, wanted in enumerate(lengths):
        is_last = stage == len(lengths) - 1
        # The last stage may have the embedding once more, as its head.
        begins = [{}, embedding] if is_last and stage > 0 else [{}]
        found = next((taken for begin in begins if (taken := _take(begin, layers, wanted, whole=is_last))), None)
        if found is None:
            raise ValueError(f"the groups of pipeline stage {stage} have {list(wanted)} values, which no layers have")
        groups, count = found
        layers = layers[count:]
        stages.append(_slots(groups, None))
    return stages


def _take(
    begin: Shapes, layers: list[Shapes], wanted: Sequence[int], *, whole: bool
) -> tuple[list[Shapes], int] | None:
    """The groups of `begin` and the first few layers (all of them if `whole`), which have the lengths `wanted`, and how many layers these are."""
    for count in [len(layers)] if whole else range(1, len(layers) + 1):
        groups = _groups(
            {name: shape for part in (begin, *layers[:count]) for name, shape in part.items()}, len(wanted)
        )
        if [sum(map(math.prod, group.values())) for group in groups] == list(wanted):
            return groups, count
    return None


def _groups(parameters: Shapes, count: int) -> list[Shapes]:
    if count == 1:
        return [parameters]
    decayed = {name: shape for name, shape in parameters.items() if not _is_exempt(name)}
    return [decayed, {name: shape for name, shape in parameters.items() if name not in decayed}]


def _is_exempt(name: str) -> bool:
    """Whether a parameter is not decayed: biases, and all of a norm."""
    *modules, last = name.split(".")
    return last == "bias" or "norm" in modules[-1]


def _layers(parameters: Shapes) -> Iterable[Shapes]:
    layers: dict[str, Shapes] = {}
    for name, shape in parameters.items():
        layers.setdefault(name.partition(".")[0], {})[name] = shape
    return layers.values()


def _slots(groups: Sequence[Shapes], paddings: Sequence[Sequence[int]] | None) -> Slots:
    slots = {}
    for number, group in enumerate(groups):
        start = 0
        for index, (name, shape) in enumerate(group.items()):
            slots[name] = Slot(number, start, shape)
            start = slots[name].end + (paddings[number][index] if paddings else 0)
    return slots
