"""Where the values of finished arguments come from, in a few words a key: what a checkpoint records beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from megatron.neox_arguments.resolving.draft import Draft


@dataclass(frozen=True)
class Origins:
    """By key, of keys that are not at their defaults: `configs/125M.yml:12:3`, `command line`, or `derived: ` and the rule.

    Arguments with the same values are equal wherever these were written, so this takes no part in comparing them.
    """

    places: Mapping[str, str] = field(default_factory=dict, compare=False)


def origins_of(draft: Draft) -> dict[str, str]:
    """The places of a resolved draft, in the form of `Origins`."""
    found = {key: _origin(draft, key) for key in draft.arguments.model_fields if _is_set(draft, key)}
    return {key: text for key, text in found.items() if text}


def _is_set(draft: Draft, key: str) -> bool:
    return key in draft.values and bool(draft.values[key] != draft.default(key))


def _origin(draft: Draft, key: str) -> str:
    """Empty when it is not known."""
    place = draft.source.origin(draft.written_as(key))
    if place is not None:
        return ", ".join([str(place), *_inside(draft, key, place.source)])
    return f"derived: {draft.rules[key]}" if key in draft.rules else ""


def _inside(draft: Draft, key: str, source: str) -> Iterator[str]:
    """Values of a section that were written elsewhere than the section."""
    for path, origin in draft.source.origins.items():
        if path[0] == key and len(path) > 1 and origin.source != source:
            yield f"{'.'.join(map(str, path[1:]))}: {origin}"
