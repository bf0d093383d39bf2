"""Datasets of the Hugging Face hub by name: `hf:NAME[:CONFIG]`, a split and a text column of it.

The hub keeps a Parquet version of every dataset (https://huggingface.co/docs/dataset-viewer/parquet); two small requests list its files
and our own downloader fetches them. The `datasets` package would bring pandas, a second copy of the data in a cache of its own, and
other rules for retries, for the same files. Of datasets over 5 GB in other formats the Parquet version holds the beginning only: that is
refused, and `--hf-files PATTERN` names files of the repository itself instead.

    DATA_DIR/NAME/files.json   the files of the first call: later ones read the same, whatever the hub adds
"""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from megatron.atomic import atomic_file
from megatron.data.corpora.base import take_files
from megatron.data.corpora.download.answers import get_json
from megatron.data.corpora.download.hub import HUB
from megatron.data.corpora.download.parallel import DownloadSettings
from megatron.data.corpora.download.record import RemoteFile
from megatron.data.corpora.remote import RemoteCorpus
from megatron.errors import DataError

VIEWER = "https://datasets-server.huggingface.co"
PREFIX = "hf:"


@dataclass(frozen=True)
class HubSelection:
    """Which rows of which dataset: `config` None for its only or default one; `pattern` for files of the repository itself."""

    dataset: str
    config: str | None = None
    split: str = "train"
    column: str = "text"
    pattern: str | None = None

    @property
    def directory_name(self) -> str:
        """A name for the corpus that a directory can have."""
        parts = [self.dataset, self.config, None if self.split == "train" else self.split]
        return re.sub(r"[^A-Za-z0-9.]+", "_", "_".join(part for part in parts if part))

    def __str__(self) -> str:
        return f"{PREFIX}{self.dataset}" + (f":{self.config}" if self.config else "")


class HubCorpus(RemoteCorpus):
    """The rows of a split of a dataset."""

    def __init__(
        self, directory: Path, selection: HubSelection, *, first_files: int | None = None, viewer: str = VIEWER
    ) -> None:
        source = f"{selection} split {selection.split} files {selection.pattern or 'of the Parquet version'}"
        super().__init__(directory, name=directory.name, remote=(), key=selection.column, source=source)
        self.selection = selection
        self._first_files = first_files
        self._viewer = viewer
        self._note = directory / "files.json"
        listed = self._read()
        if listed is not None:
            self.remote = tuple(take_files(listed, first_files))

    def prepare(self, settings: DownloadSettings | None = None) -> None:
        """List the files, unless an earlier call has, and download them."""
        settings = settings or DownloadSettings()
        listed = None if settings.force else self._read()
        if listed is None:
            listed = self._list(settings)
            self.directory.mkdir(parents=True, exist_ok=True)
            with atomic_file(self._note) as file:
                file.write(json.dumps({"source": self.source, "files": [asdict(one) for one in listed]}).encode())
        self.remote = tuple(take_files(listed, self._first_files))
        super().prepare(settings)

    def _read(self) -> list[RemoteFile] | None:
        try:
            known = json.loads(self._note.read_bytes())
            files = [RemoteFile(**{**one, "urls": tuple(one["urls"])}) for one in known["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return files if known["source"] == self.source else None

    def _list(self, settings: DownloadSettings) -> list[RemoteFile]:
        if self.selection.pattern is not None:
            return repository_files(self.selection, settings)
        return parquet_files(self.selection, settings, viewer=self._viewer)


def parquet_files(selection: HubSelection, settings: DownloadSettings, *, viewer: str = VIEWER) -> list[RemoteFile]:
    """The files of a split in the Parquet version.

    Raises DataError when the dataset, its config or split does not exist, or when the version is not complete.
    """
    answer, _ = get_json(f"{viewer}/parquet?dataset={quote(selection.dataset, safe='')}", settings)
    files = answer.get("parquet_files", [])
    config = _one_of("config", selection.config, {file["config"] for file in files}, selection)
    of_config = [file for file in files if file["config"] == config]
    split = _one_of("split", selection.split, {file["split"] for file in of_config}, selection)
    chosen = [file for file in of_config if file["split"] == split]
    if answer.get("partial") and any("/partial-" in file["url"] for file in chosen):
        raise DataError(
            f"the hub's Parquet version of {selection} holds only the first 5 GB of its split {split}: name files of the "
            f"repository itself with --hf-files PATTERN (they are listed at {HUB}/datasets/{selection.dataset}/tree/main)."
        )
    return [RemoteFile(file["filename"], (file["url"],), size=file["size"]) for file in chosen]


def repository_files(selection: HubSelection, settings: DownloadSettings) -> list[RemoteFile]:
    """The files of the repository whose path matches the pattern, sorted by path. Raises DataError when none does."""
    assert selection.pattern is not None
    place = f"{HUB}/api/datasets/{selection.dataset}/tree/main?recursive=true"
    found, every = list[RemoteFile](), list[str]()
    page: str | None = place
    while page is not None:
        entries, page = get_json(page, settings)
        for entry in entries:
            if entry["type"] == "file":
                every.append(entry["path"])
                if fnmatch.fnmatchcase(entry["path"], selection.pattern):
                    found.append(_remote_file(selection.dataset, entry))
    if not found:
        raise DataError(
            f'no file of {selection} matches "{selection.pattern}": it has {", ".join(every[:10])}'
            f"{' and others' if len(every) > 10 else ''}."
        )
    return sorted(found, key=lambda file: file.urls[0])


def _remote_file(dataset: str, entry: dict[str, Any]) -> RemoteFile:
    path = PurePosixPath(entry["path"])
    stored = entry.get("lfs") or {}
    return RemoteFile(
        "__".join(path.parts),
        (f"{HUB}/datasets/{dataset}/resolve/main/{quote(str(path))}",),
        sha256=stored.get("oid"),
        size=stored.get("size", entry.get("size")),
    )


def _one_of(what: str, wanted: str | None, there: set[str], selection: HubSelection) -> str:
    if wanted in there:
        return str(wanted)
    if wanted is None and (len(there) == 1 or "default" in there):
        return "default" if "default" in there else next(iter(there))
    asked = f'has no {what} "{wanted}"' if wanted else f"has several {what}s"
    how = f"{PREFIX}{selection.dataset}:CONFIG" if what == "config" else "--split SPLIT"
    raise DataError(f"{selection} {asked}: choose one of {', '.join(sorted(there)) or 'none'} as {how}.")
