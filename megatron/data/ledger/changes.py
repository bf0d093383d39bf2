"""What differs between the data that a run was reading and the data it would go on with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from megatron.data.ledger.segments import DatasetFiles, OrderKeys, Segment, SourceRecord


def changes_of_order(before: Segment, now: Segment) -> list[str]:
    """A phrase (was, is) for each change by which sample i would hold other tokens; empty when none would.

    Where a dataset lies does not matter, and neither do batches, which only say how many samples a step takes.
    """
    return changes_of_data(before, now.keys, now.sources) or _changes_of_length(before, now)


def changes_of_data(before: Segment, keys: OrderKeys, sources: Sequence[SourceRecord]) -> list[str]:
    """As `changes_of_order`, as far as it shows before index maps are built."""
    old, new = asdict(before.keys), asdict(keys)
    phrases = [f"{key} was {old[key]} and is {new[key]}" for key in old if old[key] != new[key]]
    return phrases + changes_of_sources(before.sources, sources)


def changes_of_sources(before: Sequence[SourceRecord], now: Sequence[SourceRecord]) -> list[str]:
    """A phrase for each change of content, of the documents used, or of weights."""
    if len(before) != len(now):
        return [f"the data was {_listed(before)} and is {_listed(now)}"]
    old_contents, new_contents = _contents(before), _contents(now)
    if old_contents != new_contents and sorted(old_contents) == sorted(new_contents):
        return [f"the order of the blend was {_listed(before)} and is {_listed(now)}"]
    phrases = list[str]()
    for number, (old, new) in enumerate(zip(before, now, strict=True), start=1):
        phrases += _changes_of_source(f"dataset {number}", old, new)
    return phrases + _changes_of_shares(before, now)


def _changes_of_source(name: str, old: SourceRecord, new: SourceRecord) -> Iterator[str]:
    if not old.files.same_content(new.files):
        if old.files.path != new.files.path:
            yield f"{name} was {old.files.path} and is {new.files.path}, which holds something else"
            return
        yield _change_of_files(old.files, new.files)
    if old.documents != new.documents:
        yield f"of {new.files.path} documents {_span(old)} were used and {_span(new)} are"
    if old.labels is None or new.labels is None:
        if old.labels != new.labels:
            was, present = (record.labels.path if record.labels else "none" for record in (old, new))
            yield f"the label data of {new.files.path} was {was} and is {present}"
    elif not old.labels.same_content(new.labels):
        yield _change_of_files(old.labels, new.labels)


def _change_of_files(old: DatasetFiles, new: DatasetFiles) -> str:
    changed = [suffix for suffix, same in ((".idx", old.idx == new.idx), (".bin", old.bin == new.bin)) if not same]
    return f"{' and '.join(new.path + suffix for suffix in changed)} {'holds' if len(changed) == 1 else 'hold'} something else than before"


def _changes_of_length(before: Segment, now: Segment) -> list[str]:
    """Maps of another length are in another order. It stays when a run is resumed, unless the data is named by another key."""
    if all(old.samples == new.samples for old, new in zip(before.sources, now.sources, strict=True)):
        return []
    was, present = ([source.samples for source in segment.sources] for segment in (before, now))
    return [
        f"the same data was laid out for {was} samples and is for {present}, as another key names it now, which changes their order"
    ]


def _changes_of_shares(before: Sequence[SourceRecord], now: Sequence[SourceRecord]) -> list[str]:
    old, new = _shares(before), _shares(now)
    if old != new and all(map(math.isclose, old, new)):
        was, present = (", ".join(f"{source.weight:g}" for source in sources) for sources in (before, now))
        return [f"the weights were {was} and are {present}, whose shares are rounded otherwise, which decides ties"]
    return [
        f"the share of {source.files.path} was {was:.6g} and is {share:.6g}"
        for source, was, share in zip(now, old, new, strict=True)
        if was != share
    ]


def _contents(sources: Sequence[SourceRecord]) -> list[tuple[str, str]]:
    return [(source.files.idx, source.files.bin) for source in sources]


def _shares(sources: Sequence[SourceRecord]) -> list[float]:
    total = sum(source.weight for source in sources)
    return [source.weight / total for source in sources]


def _span(source: SourceRecord) -> str:
    first, end = source.documents
    return f"{first} to {end - 1}" if end > first else "none"


def _listed(sources: Sequence[SourceRecord]) -> str:
    return ", ".join(source.files.path for source in sources)
