"""Which input file each document of a dataset came from: `PREFIX.sources.json`, beside `PREFIX.bin` and `PREFIX.idx`.

    {"format": 1, "documents": 300, "tokens": 51234, "sources": [["/texts/a.jsonl", 200], ["/texts/b.jsonl", 100]]}

says that documents 0 to 199 are those of a.jsonl, in its order, and the others those of b.jsonl. What was left out of a dataset, because
it was bad or had no tokens, is not counted. Where documents did not come from files, a name for what they came from stands for the path.
Datasets that other programs have written are without such a file.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from megatron.atomic import atomic_file
from megatron.data.indexed_dataset import IndexedDataset, origins_path

FORMAT = 1


@dataclass(frozen=True)
class Origin:
    """Where a document came from. number: which one of that file's documents it is, counted from 0 among those in the dataset."""

    path: str
    number: int


@dataclass(frozen=True)
class Origins:
    """The paths in the order of the documents, and for each the number of the first document behind its own."""

    paths: tuple[str, ...]
    ends: tuple[int, ...]

    def of(self, document: int) -> Origin:
        """Where a document came from."""
        place = bisect_right(self.ends, document)
        return Origin(self.paths[place], document - (self.ends[place - 1] if place else 0))


def write_origins(path: Path, counts: Iterable[tuple[str, int]], *, tokens: int) -> None:
    """Write the file, whole or not at all. counts: (path or name, documents) in the order of the documents; tokens: of all of them."""
    listed = list(counts)
    documents = sum(count for _, count in listed)
    content = {"format": FORMAT, "documents": documents, "tokens": tokens, "sources": listed}
    with atomic_file(path) as file:
        file.write(json.dumps(content).encode("utf-8"))


def read_origins(dataset: IndexedDataset) -> Origins | None:
    """Where the documents of a dataset came from; None when it does not say, or the file beside it belongs to another dataset."""
    try:
        content = json.loads(origins_path(dataset.prefix).read_bytes())
        paths, counts = zip(*content["sources"], strict=True)
        about = (content["format"], content["documents"], content["tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if about != (FORMAT, len(dataset), dataset.tokens_of(range(len(dataset)))):
        return None
    return Origins(paths, tuple(accumulate(counts)))


def joined(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The counts, those of one path that follow each other as one."""
    result = list[tuple[str, int]]()
    for path, count in counts:
        if result and result[-1][0] == path:
            count += result.pop()[1]
        result.append((path, count))
    return result
