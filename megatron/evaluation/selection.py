"""Which tasks the given names mean: names of tasks, groups and tags, and patterns of them, none of which is run twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Catalogue:
    """What there is, by name. members: the names in each group and each tag; tags: which of these names are tags, that have no score."""

    names: frozenset[str]
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()

    def tasks_of(self, name: str) -> frozenset[str]:
        """The tasks that are run for a name: those of a group or tag, of its groups and so on; of a task itself."""
        found: set[str] = set()
        seen: set[str] = set()
        open_names = [name]
        while open_names:
            current = open_names.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self.members:
                open_names += self.members[current]
            else:
                found.add(current)
        return frozenset(found)


def is_pattern(name: str) -> bool:
    """Whether a name stands for all that match it."""
    return any(character in name for character in "*?[")


def select(catalogue: Catalogue, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names to run for `words`, in their order, and the words that mean nothing here.

    What another chosen name runs already is left out: its score is among the results of that one.
    """
    meant = {word: _matches(catalogue, word) for word in words}
    chosen: dict[str, list[str]] = {}
    run: set[str] = set()
    # The largest first, so that a group is chosen as such, with its own score, and not as the tasks it has.
    for word in sorted(meant, key=lambda word: (is_pattern(word), -len(catalogue.tasks_of(word)))):
        for name in meant[word]:
            tasks = catalogue.tasks_of(name)
            # A pattern meets groups that share tasks: of the later one those are run that no other has.
            in_parts = is_pattern(word) and not run.isdisjoint(tasks)
            if not tasks <= run:
                chosen[name] = sorted(tasks - run) if in_parts else [name]
                run |= tasks
    in_order = dict.fromkeys(each for names in meant.values() for name in names for each in chosen.get(name, ()))
    return list(in_order), [word for word, names in meant.items() if not names]


def _matches(catalogue: Catalogue, word: str) -> list[str]:
    if word in catalogue.names:
        return [word]
    if not is_pattern(word):
        return []
    found = [name for name in catalogue.names if fnmatchcase(name, word)]
    return sorted(found, key=lambda name: (name in catalogue.tags, -len(catalogue.tasks_of(name)), name))
