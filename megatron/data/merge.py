"""Several datasets of one kind put together into one: the documents of the first, then those of the second, and so on.

Companions of texts, which are their labels and rewards (see companions.py), are merged alike, into companions of the output, when asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megatron.data.companions import COMPANIONS, check_none_stale, companion_of, companions_of, is_there
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter, dataset_prefix, origins_path
from megatron.data.origins import joined, read_origins, write_origins
from megatron.errors import DataError


@dataclass(frozen=True)
class Merged:
    """What was written: the files are `prefix` + `.bin` and `.idx`."""

    prefix: Path
    documents: int
    tokens: int


@dataclass(frozen=True)
class Found:
    """Datasets to merge, in order; `companions` were found in directories beside their texts and are not among them."""

    prefixes: tuple[Path, ...]
    companions: tuple[Path, ...] = ()


def find_datasets(words: Iterable[str | Path]) -> Found:
    """The datasets that `words` name, in their order: each a prefix, with or without suffix, or a directory, whose datasets come in the order
    of their names. Raises DataError for a directory without datasets, or with half of one.
    """
    prefixes, companions = list[Path](), list[Path]()
    for word in map(Path, words):
        if not word.is_dir():
            prefixes.append(dataset_prefix(word))
            continue
        names = {path.stem for path in word.iterdir() if path.suffix in (".bin", ".idx")}
        if not names:
            raise DataError(
                f"{word} holds no datasets (.bin and .idx): name another directory, or datasets by their prefixes."
            )
        there = [word / name for name in sorted(names)]
        beside = {companion for prefix in there for companion in companions_of(prefix)}
        prefixes += [prefix for prefix in there if prefix not in beside]
        companions += [prefix for prefix in there if prefix in beside]
    return Found(tuple(prefixes), tuple(companions))


def merge_datasets(prefixes: Sequence[Path], output: Path, *, with_companions: bool = False) -> tuple[Merged, ...]:
    """Merge datasets, in the order given, into one at `output`, and their companions into its companions if asked for.

    All appear whole, or not at all. Raises DataError when one is not a dataset, the dtypes differ, the output is among the inputs or
    their companions, companions are missing or do not fit their texts, are merged with texts, or would be left beside an output.
    """
    output = dataset_prefix(output)
    _check_names(prefixes, output)
    kinds = ["", *(_companions_of_all(prefixes) if with_companions else [])]
    sources = {
        _of_kind(output, kind): [IndexedDataset(_of_kind(prefix, kind)) for prefix in prefixes] for kind in kinds
    }
    texts = sources[output]
    for target, datasets in sources.items():
        if target.resolve() in [dataset.prefix.resolve() for dataset in datasets]:
            raise DataError(f"--output-prefix {target} is one of the inputs: choose another name.")
        _check_aligned(datasets, texts, tokens_too=target == _of_kind(output, "label"))
    check_none_stale(sources)
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(IndexedDatasetWriter(target, dtype=datasets[0].dtype))
            for target, datasets in sources.items()
        ]
        for writer, datasets in zip(writers, sources.values(), strict=True):
            for dataset in datasets:
                writer.add_dataset(dataset)
    for writer, datasets in zip(writers, sources.values(), strict=True):
        write_origins(origins_path(writer.prefix), joined(_origins(datasets)), tokens=writer.tokens)
    return tuple(Merged(writer.prefix, writer.documents, writer.tokens) for writer in writers)


def _check_names(prefixes: Sequence[Path], output: Path) -> None:
    """Raise DataError when a companion is among its texts, or would be overwritten by texts."""
    owners = {companion.resolve(): prefix for prefix in prefixes for companion in companions_of(prefix)}
    for prefix in prefixes:
        if prefix.resolve() in owners:
            raise DataError(
                f"{prefix} belongs to {owners[prefix.resolve()]}, which is another input: leave it out, or merge it beside that with "
                "--with-companions."
            )
    if output.resolve() in owners:
        raise DataError(
            f"--output-prefix {output} is the name of what belongs to {owners[output.resolve()]}, an input: choose another name."
        )


def _of_kind(prefix: Path, kind: str) -> Path:
    return companion_of(prefix, kind) if kind else prefix


def _companions_of_all(prefixes: Sequence[Path]) -> list[str]:
    """The kinds of companions that there are. Raises DataError when there are none, or some texts lack one that others have."""
    kinds = [kind for kind in COMPANIONS if any(is_there(companion_of(prefix, kind)) for prefix in prefixes)]
    if not kinds:
        raise DataError(
            f"--with-companions finds neither labels nor rewards beside {', '.join(map(str, prefixes))}: leave it out to merge the texts."
        )
    for kind in kinds:
        for prefix in prefixes:
            if not is_there(companion_of(prefix, kind)):
                raise DataError(
                    f"{prefix} has no {companion_of(prefix, kind).name} beside it, which others have: a merged dataset has {kind}s for "
                    "all of its documents or for none. Write it, or leave --with-companions out."
                )
    return kinds


def _check_aligned(companions: Sequence[IndexedDataset], texts: Sequence[IndexedDataset], *, tokens_too: bool) -> None:
    for companion, text in zip(companions, texts, strict=True):
        same = np.array_equal(companion.sizes, text.sizes) if tokens_too else len(companion) == len(text)
        if not same:
            raise DataError(
                f"{companion.prefix} is not of the documents of {text.prefix}, whose sizes or number differ: write both again by one command."
            )


def _origins(datasets: Sequence[IndexedDataset]) -> Iterable[tuple[str, int]]:
    """Where the documents came from, as the datasets say; of one that does not say, from itself."""
    for dataset in datasets:
        origins = read_origins(dataset)
        if origins is None:
            yield str(dataset.prefix.absolute()), len(dataset)
        else:
            yield from zip(origins.paths, np.diff(origins.ends, prepend=0).tolist(), strict=True)
