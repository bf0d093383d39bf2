"""A corpus that consists of files on servers: a row of a table, and what is made of it in a directory.

DATA_DIR/NAME/raw/   the files as they came, each with a note of its origin and SHA-256
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.data.corpora.base import About, Corpus, take_files
from megatron.data.corpora.download.here import verify, whole_files
from megatron.data.corpora.download.parallel import DownloadSettings, download
from megatron.data.corpora.download.record import RemoteFile, read_record
from megatron.data.corpora.reading import check_readable, texts_of_files
from megatron.errors import DataError


class RemoteCorpus(Corpus):
    """The documents in `remote` files, which are kept in `raw`, `directory / "raw"` unless it is given."""

    variant = ""
    """What else than files and key the documents depend on."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        remote: Sequence[RemoteFile],
        key: str = "text",
        source: str | None = None,
        raw: Path | None = None,
    ) -> None:
        super().__init__(directory)
        self.name = name
        self.key = key
        self.remote = tuple(remote)
        self.raw = raw or directory / "raw"
        self._source = source or name
        self._just_came = False

    @property
    def source(self) -> str:
        return self._source

    def prepare(self, settings: DownloadSettings | None = None) -> None:
        """Download what is missing. Raises DataError, or MissingRequirement before a download that could not be read."""
        settings = settings or DownloadSettings()
        check_readable([file.name for file in self.remote])
        self._just_came = settings.force or whole_files(self.remote, self.raw) is None
        download(self.remote, self.raw, settings)

    def verify(self) -> None:
        """Nothing to do for files that were verified as they came."""
        if not self._just_came:
            verify(self.remote, self.raw)

    def files(self) -> Sequence[Path] | None:
        return [self.raw / file.name for file in self.remote]

    def documents(self) -> Iterator[str]:
        return texts_of_files([self.raw / file.name for file in self.remote], self.key)

    def fingerprint(self) -> str:
        """Of the SHA-256 of the files: the same wherever they came from. Raises DataError before they came."""
        fingerprint = self.known_fingerprint()
        if fingerprint is None:
            raise DataError(f"the files of {self.name} are not all in {self.raw}: prepare_data.py downloads them.")
        return fingerprint

    def known_fingerprint(self) -> str | None:
        """From the records beside the files, which are enough once the dataset is made: the files themselves may be deleted."""
        records = [read_record(self.raw / file.name) for file in self.remote]
        digests = [record.sha256 for record in records if record is not None and record.sha256 is not None]
        if not digests or len(digests) < len(self.remote):
            return None
        return hashlib.sha256(json.dumps([self.variant, self.key, digests]).encode()).hexdigest()


@dataclass(frozen=True)
class RemoteKind:
    """A row of a table of corpora that differ by their files only."""

    name: str
    about: About
    remote: tuple[RemoteFile, ...]
    raw_of: str | None = None
    """The corpus whose raw files these are, when it is another."""

    def __call__(self, directory: Path, *, first_files: int | None = None) -> RemoteCorpus:
        """The corpus, or only its first so many files."""
        return RemoteCorpus(
            directory,
            name=self.name,
            remote=take_files(self.remote, first_files),
            raw=directory.parent / (self.raw_of or directory.name) / "raw",
        )
