"""What a corpus is: documents in a fixed order, and a fingerprint that says when they have changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from megatron.data.corpora.download.parallel import DownloadSettings
from megatron.errors import DataError


@dataclass(frozen=True)
class About:
    """What `prepare_data.py --list` says of a corpus. `size` is that of its download; `tokens` by GPT-2's vocabulary, if known."""

    description: str
    size: str
    licence: str
    tokens: str = ""


class Corpus(ABC):
    """A source of documents; `directory` is the place for its prepared files and for whatever raw files it keeps.

    Documents are in an order that depends on nothing but the corpus, and that is already shuffled where the natural order has a
    trend, because splits are cut in file order.
    """

    name: str
    key: str = "text"
    """The key or column that holds a document's text; part of the names of the prepared files."""

    fits_memory = False
    """Whether all documents may be held at once, which spares reading them twice."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def source(self) -> str:
        """Where the documents come from: two corpora with one directory are told apart by it."""
        return self.name

    def prepare(self, settings: DownloadSettings | None = None) -> None:  # noqa: B027 - most local corpora fetch nothing
        """Bring the raw files to this machine; does nothing when they are there. Raises DataError."""

    def verify(self) -> None:  # noqa: B027 - there is nothing to compare local files with
        """Compare raw files that were here before this run with what they were when they came. Raises DataError."""

    def files(self) -> Sequence[Path] | None:
        """The files whose documents these are, all of them and in order; None when only `documents` can tell."""
        return None

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """The text of each document. Raises DataError when there are none to read."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hexadecimal digest that changes with the documents or their order; cheap, as it is taken at every start."""

    def known_fingerprint(self) -> str | None:
        """The fingerprint, when it can be told before `prepare`; else None."""
        return self.fingerprint()


class CorpusKind(Protocol):
    """What `megatron.components.CORPORA` holds under `name`: makes the corpus for a directory, or raises why it cannot be had."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> About: ...

    def __call__(self, directory: Path, *, first_files: int | None = None) -> Corpus:
        """first_files: only so many of the files the corpus consists of."""
        ...


File = TypeVar("File")


def take_files(files: Sequence[File], count: int | None) -> Sequence[File]:
    """The first `count` files, or all. Raises DataError for a number that is not among 1 ... all."""
    if count is None:
        return files
    if not 1 <= count <= len(files):
        raise DataError(f"--files {count} cannot be: the corpus has {len(files)} files, take 1 to {len(files)}.")
    return files[:count]
