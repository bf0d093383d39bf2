"""The names of a checkpoint's tensors: which parameter, which kind of its values, which layer and module; and how to ask for them.

`"2.attention.dense.weight/exp_avg"` is the `exp_avg` of the parameter `dense.weight` in module `attention` of layer 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from megatron.errors import CheckpointError
from megatron.registry import did_you_mean


def parameter_of(name: str) -> str:
    """The parameter that a tensor belongs to."""
    return name.rpartition("/")[0]


def kind_of(name: str) -> str:
    """What a tensor is of its parameter: "weight", "exp_avg", ..."""
    return name.rpartition("/")[2]


def in_order(names: Iterable[str]) -> list[str]:
    """The names in the order of layers: 2 before 10."""
    return sorted(
        names,
        key=lambda name: [
            (not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in name.split(".")
        ],
    )


def select(wanted: Sequence[str], names: Sequence[str], *, where: object) -> list[str]:
    """The tensors that are asked for: by name, by parameter (all its kinds), or by a pattern of either (`*.bias`, `2.*/exp_avg`).

    Raises CheckpointError for a word that is none of these in `where`.
    """
    found: dict[str, None] = {}
    for word in wanted:
        matching = [name for name in names if fnmatchcase(name, word) or fnmatchcase(parameter_of(name), word)]
        if not matching:
            known = [*names, *dict.fromkeys(map(parameter_of, names))]
            raise CheckpointError(f'{where} holds no tensor "{word}"{did_you_mean(word, known)}')
        found.update(dict.fromkeys(matching))
    return in_order(found)
