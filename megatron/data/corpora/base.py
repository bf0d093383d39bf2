"""What a corpus is: documents in a fixed order, and a fingerprint that says when they have changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path


class Corpus(ABC):
    """A source of documents; `directory` is the place for whatever raw files it keeps.

    A corpus is registered in `megatron.components.CORPORA` under `name`. Documents are in an order that depends on nothing but the
    corpus, and that is already shuffled where the natural order has a trend, because splits are cut in file order.
    """

    name: str
    description: str
    """One line for `prepare_data.py --list`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def prepare(self) -> None:  # noqa: B027 - nothing to fetch is the usual case of a local corpus
        """Bring the raw files into `directory`; does nothing when they are there. Raises DataError."""

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """The text of each document. Raises DataError when there are none to read."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hexadecimal digest that changes with the documents or their order; cheap, as it is taken at every start."""
