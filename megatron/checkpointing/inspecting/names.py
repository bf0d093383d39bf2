"""How to ask for tensors of a checkpoint, and the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from megatron.checkpointing.names import parameter_of
from megatron.errors import CheckpointError
from megatron.registry import did_you_mean


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
