"""Files of your own: `file:PATH,...`, or the paths alone, in every format and form that tools/datasets/preprocess_data.py takes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from functools import cached_property
from pathlib import Path

from megatron.data.corpora.base import Corpus, take_files
from megatron.data.corpora.download.parallel import DownloadSettings
from megatron.data.corpora.reading import check_readable, texts_of_files
from megatron.data.inputs.fingerprint import fingerprint
from megatron.data.inputs.paths import find_inputs


class LocalCorpus(Corpus):
    """The documents in files, directories and globs; the files stay where they are."""

    def __init__(
        self, directory: Path, words: Sequence[str], *, key: str = "text", first_files: int | None = None
    ) -> None:
        super().__init__(directory)
        self._first_files = first_files
        self.name = directory.name
        self.key = key
        self.words = tuple(words)

    @property
    def source(self) -> str:
        return f"file:{','.join(str(Path(word).absolute()) for word in self.words)}"

    @cached_property
    def paths(self) -> Sequence[Path]:
        """The files in order. Raises DataError that tells every word that names none."""
        return take_files(find_inputs(self.words).files, self._first_files)

    def prepare(self, settings: DownloadSettings | None = None) -> None:
        check_readable([path.name for path in self.paths])

    def files(self) -> Sequence[Path] | None:
        return self.paths

    def documents(self) -> Iterator[str]:
        return texts_of_files(self.paths, self.key)

    def fingerprint(self) -> str:
        known = [self.key, *(astuple(fingerprint(path)) for path in self.paths)]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def name_of_files(words: Sequence[str]) -> str:
    """What a corpus of these files or addresses is called: the first one without its suffixes, and how many more there are."""
    plain = [word.partition("?")[0].rstrip("/").rpartition("/")[2] for word in words]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", plain[0].lstrip(".").partition(".")[0]).strip("_") or "files"
    return stem if len(words) == 1 else f"{stem}_and_{len(words) - 1}_more"
