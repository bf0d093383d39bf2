"""From the words of a command line to corpora: `enwik8,hf:NAME:CONFIG,file:a.jsonl,b.jsonl` are three.

NAME                 one of `megatron.components.CORPORA`
hf:NAME[:CONFIG]     a dataset of the Hugging Face hub
file:PATH            files, directories, globs; paths that follow one another are one corpus, and `file:` may be left out where a
                     path has a slash or exists
https://...          files on a server; addresses that follow one another are one corpus
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from megatron.components import CORPORA
from megatron.data.corpora.base import Corpus, CorpusKind, take_files
from megatron.data.corpora.download.record import RemoteFile
from megatron.data.corpora.hub import PREFIX, HubCorpus, HubSelection
from megatron.data.corpora.local import LocalCorpus, name_of_files
from megatron.data.corpora.remote import RemoteCorpus
from megatron.data.inputs.paths import split_commas
from megatron.errors import DataError, NeoXError

FILE_PREFIX = "file:"
URL_PREFIXES = ("http://", "https://")


@dataclass(frozen=True)
class Choice:
    """Options that say what is taken of corpora that are not in the registry, and how much of any."""

    key: str = "text"
    split: str = "train"
    hub_files: str | None = None
    first_files: int | None = None
    name: str | None = None


def build_corpora(words: str, *, data_directory: Path, choice: Choice | None = None) -> list[Corpus]:
    """The corpora that `words` name, each with a directory of its own. Raises NeoXError for one that does not exist."""
    choice = choice or Choice()
    corpora = [_build(group, data_directory, choice) for group in _groups(words)]
    if not corpora:
        raise DataError("no corpus is named: prepare_data.py --list says which there are.")
    _check_options(choice, corpora)
    if choice.name is not None and len(corpora) > 1:
        raise DataError(f"--name {choice.name} cannot be the name of {len(corpora)} corpora: prepare them one by one.")
    directories = [corpus.directory for corpus in corpora]
    twice = next((path for path in directories if directories.count(path) > 1), None)
    if twice is not None:
        raise DataError(f"two of the corpora would be made in {twice}: prepare them one by one, with --name NAME.")
    return corpora


def _check_options(choice: Choice, corpora: list[Corpus]) -> None:
    """Raise DataError for an option that none of the corpora heeds."""
    of_hub = any(isinstance(corpus, HubCorpus) for corpus in corpora)
    with_key = (HubCorpus, LocalCorpus)
    registered = not any(isinstance(one, with_key) or one.source.startswith(URL_PREFIXES) for one in corpora)
    unheeded = [
        ("--split", choice.split != "train" and not of_hub),
        ("--hf-files", choice.hub_files is not None and not of_hub),
        ("--text-key", choice.key != "text" and registered),
    ]
    for option, is_unheeded in unheeded:
        if is_unheeded:
            whose = "files, addresses and hub datasets" if option == "--text-key" else "hub datasets (hf:NAME)"
            raise DataError(f"{option} is for {whose}, and none is named: leave it out.")


def build_corpus(name: str, *, data_directory: Path, choice: Choice | None = None) -> Corpus:
    """The one corpus that `name` names. Raises NeoXError for none or several."""
    corpora = build_corpora(name, data_directory=data_directory, choice=choice)
    if len(corpora) > 1:
        raise DataError(f'"{name}" names {len(corpora)} corpora where one is needed.')
    return corpora[0]


def _groups(words: str) -> list[list[str]]:
    """The words of each corpus."""
    groups = list[list[str]]()
    for word in split_commas(words):
        joins = (_is_path(word) and not word.startswith(FILE_PREFIX)) or _is_url(word)
        if joins and groups and _is_path(groups[-1][0]) == _is_path(word) and _is_url(groups[-1][0]) == _is_url(word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _is_url(word: str) -> bool:
    return word.startswith(URL_PREFIXES)


def _is_path(word: str) -> bool:
    """Whether a word is files rather than a name; a name of the registry is one even where a file is called so, too."""
    if word.startswith(FILE_PREFIX):
        return True
    if word in CORPORA or word.startswith(PREFIX) or _is_url(word):
        return False
    return os.sep in word or glob.has_magic(word) or os.path.exists(word)


def _build(words: list[str], data_directory: Path, choice: Choice) -> Corpus:
    first = words[0]
    if _is_url(first):
        return _build_remote(words, data_directory, choice)
    if _is_path(first):
        paths = [word.removeprefix(FILE_PREFIX) for word in words]
        return LocalCorpus(
            data_directory / (choice.name or name_of_files(paths)),
            paths,
            key=choice.key,
            first_files=choice.first_files,
        )
    if first.startswith(PREFIX):
        dataset, _, config = first.removeprefix(PREFIX).partition(":")
        if not dataset:
            raise DataError(f'"{first}" names no dataset: write {PREFIX}NAME or {PREFIX}NAME:CONFIG.')
        selection = HubSelection(dataset, config or None, choice.split, choice.key, choice.hub_files)
        directory = data_directory / (choice.name or selection.directory_name)
        return HubCorpus(directory, selection, first_files=choice.first_files)
    return _build_registered(first, data_directory, choice)


def _build_registered(word: str, data_directory: Path, choice: Choice) -> Corpus:
    name = word if word in CORPORA else word.lower()
    try:
        kind: CorpusKind = CORPORA.load(name if name in CORPORA else word)
    except NeoXError as error:
        if word in CORPORA:
            raise
        raise NeoXError(
            f"{error}; or give files (file:PATH), addresses (https://...) or a dataset of the hub (hf:NAME)"
        ) from None
    return kind(data_directory / (choice.name or name), first_files=choice.first_files)


def _build_remote(urls: list[str], data_directory: Path, choice: Choice) -> Corpus:
    names = [unquote(urlsplit(url).path).rpartition("/")[2] for url in urls]
    unusable = next((url for url, name in zip(urls, names, strict=True) if names.count(name) > 1 or not name), None)
    if unusable is not None:
        raise DataError(f"{unusable} does not end in a file name of its own: give files that have different names.")
    remote = [RemoteFile(name, (url,)) for name, url in zip(names, urls, strict=True)]
    directory = data_directory / (choice.name or name_of_files(urls))
    return RemoteCorpus(
        directory,
        name=directory.name,
        remote=take_files(remote, choice.first_files),
        key=choice.key,
        source=",".join(urls),
    )
