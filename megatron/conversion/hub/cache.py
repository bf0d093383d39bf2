"""A model of the Hugging Face Hub in the local cache: which commit and which files it is, downloading them, and finding them again."""

from __future__ import annotations

import glob
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError
from huggingface_hub.utils import tqdm

from megatron.conversion.hub.failures import download_advice, is_unreachable, one_sentence, patiently
from megatron.conversion.hub.files import CONFIG, SMALL_FILES, weight_files
from megatron.conversion.hub.names import HubName
from megatron.errors import CheckpointError
from megatron.log import get_logger
from megatron.text import memory

logger = get_logger(__name__)

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """A model at one commit. files: the names of those that belong to it, and their sizes in bytes."""

    name: HubName
    commit: str
    files: Mapping[str, int]


def find_snapshot(name: HubName) -> Snapshot:
    """The commit that `name` means now, or meant when it was last downloaded where the Hub does not answer; gets the small files.

    Raises CheckpointError when there is no such model, or no complete one.
    """
    with one_sentence(name, download_advice):
        directory = _small_files(name)
        sizes, where = _sizes(name, directory)
    if CONFIG not in sizes:
        raise CheckpointError(f"{where} has no {CONFIG}, so it is no model of transformers")
    files = [*(file for file in SMALL_FILES if file in sizes), *weight_files(sizes, directory, where=where)]
    return Snapshot(name, directory.name, {file: sizes[file] for file in files})


def download(snapshot: Snapshot) -> None:
    """Download what the cache does not have. Raises CheckpointError when that does not fit, and as `find_snapshot` does."""
    missing = {file: size for file, size in snapshot.files.items() if _cached(snapshot, file) is None}
    if not missing:
        return
    name, cache = snapshot.name, Path(constants.HF_HUB_CACHE)
    needed, free = sum(missing.values()), _free_bytes(cache)
    if needed > free:
        raise CheckpointError(
            f"{name} needs {memory(needed)} more in {cache}, where {memory(free)} are free: free some room, or set HF_HOME to a "
            "place with more"
        )
    logger.info("downloading %s at commit %s into %s: %s", name, snapshot.commit, cache, memory(needed))
    with one_sentence(name, download_advice):
        patiently(lambda: _snapshot(name, snapshot.commit, missing, quiet=not sys.stderr.isatty()))


def directory_of(snapshot: Snapshot) -> Path:
    """Where a downloaded model lies. Raises CheckpointError when this process does not see all of it."""
    directory = None
    for file in snapshot.files:
        path = _cached(snapshot, file)
        if path is None:
            raise CheckpointError(
                f"{constants.HF_HUB_CACHE} does not hold {file} of {snapshot.name}, which another process of this node has "
                "downloaded: give all processes the same HF_HOME"
            )
        directory = path.parent
    assert directory is not None, "a model has files"
    return directory


def _small_files(name: HubName) -> Path:
    """The cache's directory of the commit that is meant, with the small files in it."""
    try:
        if not _COMMIT.fullmatch(name.revision or ""):  # what a commit holds does not change: it may be in the cache
            # Asked first, as snapshot_download would take what the cache has after the first failure.
            patiently(lambda: HfApi().model_info(name.repository, revision=name.revision))
        return patiently(lambda: _snapshot(name, name.revision, SMALL_FILES, quiet=True))
    except Exception as error:
        if not is_unreachable(error):
            raise
        try:
            directory = _snapshot(name, name.revision, SMALL_FILES, quiet=True, local_files_only=True)
        except LocalEntryNotFoundError:
            raise error from None
        logger.warning(
            "the Hugging Face Hub is not asked: %s as it was downloaded earlier, commit %s", name, directory.name
        )
        return directory


def _sizes(name: HubName, directory: Path) -> tuple[dict[str, int], str]:
    """All files of the commit and their sizes, and where they are; only those in the cache when it does not know what else there is."""
    try:
        tree = get_cached_repo_tree(name.repository, revision=directory.name)
    except CachedRepoTreeNotFoundError:  # other programs have downloaded single files
        here = {path.name: path.stat().st_size for path in directory.iterdir() if path.is_file()}
        return here, f"{name} in the cache {constants.HF_HUB_CACHE}"
    return {file.path: file.size for file in tree}, f"{name} of the Hugging Face Hub"


def _cached(snapshot: Snapshot, file: str) -> Path | None:
    path = try_to_load_from_cache(snapshot.name.repository, file, revision=snapshot.commit)
    return Path(path) if isinstance(path, str) else None


def _snapshot(
    name: HubName, revision: str | None, files: Iterable[str], *, quiet: bool, local_files_only: bool = False
) -> Path:
    """The cache's directory of a revision, with those of `files` that there are."""
    directory = snapshot_download(
        name.repository,
        revision=revision,
        allow_patterns=[glob.escape(file) for file in files],
        local_files_only=local_files_only,
        tqdm_class=_NoBar if quiet else None,
    )
    return Path(directory)


class _NoBar(tqdm):
    """A progress bar that shows nothing: in a log file every step of one would be a line."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "disable": True})


def _free_bytes(directory: Path) -> int:
    """Room in the file system where `directory` is, or will be."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    return shutil.disk_usage(there).free
