"""The directory of a converted model: there whole or not at all, and never in the place of something else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from megatron.atomic import sync_directory
from megatron.checkpointing.files import TEMPORARY_PREFIX, make_directories, rename_durably, temporary_path
from megatron.checkpointing.layout import REPLACED_PREFIX
from megatron.checkpointing.places import is_local, place
from megatron.checkpointing.saving.temporaries import claim, maker_is_gone, release
from megatron.errors import CheckpointError

REPORT = "conversion_report.json"


def output_directory(
    text: str | Path, *, overwrite: bool, source: Path | None = None, begun: Collection[str] = ()
) -> Path:
    """The directory to write. source: where the model is read from; begun: names of what a first part of the same conversion has left there.

    Raises CheckpointError for one of a store, for one that cannot be replaced, and for one that holds something. What holds nothing but the report
    of a conversion that failed, or what was begun, counts as empty; a converted model is replaced with `overwrite` only, and whatever else never.
    """
    directory = place(text)
    if not is_local(directory):
        raise CheckpointError(
            f"{text} is in a store, and a model is written to a directory of this machine, which may be uploaded afterwards"
        )
    _put_back(directory)
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise CheckpointError(f"{directory} exists and is no directory: give another name")
    if directory.resolve() in (Path.cwd(), *Path.cwd().parents) or directory.is_mount():
        raise CheckpointError(
            f"{directory} is the directory you are in, one above it, or a mounted disk, which no other can replace: give a new one inside it"
        )
    if source is not None and directory.resolve() in (source.resolve(), *source.resolve().parents):
        raise CheckpointError(f"{directory} holds the model that is to be converted: give another directory")
    names = _names(directory)
    if names <= {REPORT} or names <= set(begun):
        return directory
    strange = sorted(names - _written(directory) - {REPORT})
    if REPORT not in names:
        raise CheckpointError(f"{directory} holds something else than a converted model: give another directory")
    if not overwrite:
        raise CheckpointError(f"{directory} holds a converted model: give another directory, or --overwrite")
    if strange:
        raise CheckpointError(
            f"{directory} holds {strange[0]} beside a converted model, and no conversion wrote it: move it elsewhere, or give another directory"
        )
    return directory


def report_beside(directory: Path) -> Path:
    """Where the report of a conversion lies that failed, when an earlier model stays in `directory`."""
    return directory.absolute().parent / f"{directory.name}.{REPORT}"


def holds_model(directory: Path) -> bool:
    """Whether there is more than the report of a conversion that failed."""
    return not _names(directory) <= {REPORT}


@contextlib.contextmanager
def directory_to_be(directory: Path) -> Iterator[Path]:
    """An empty directory beside `directory`, which takes its place (and that of what is there) when the block ends, and vanishes when it raises.

    One that holds nothing but a report takes no place of a model: the report goes beside it (`report_beside`). What killed processes left of the
    same name is removed. Raises CheckpointError at the end when something has been added to `directory` meanwhile.
    """
    names = _names(directory)
    parent = directory.absolute().parent
    make_directories(parent)
    _clean(directory)
    temporary = claim(temporary_path(parent, directory.name))
    try:
        temporary.mkdir()
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_dir():
                sync_directory(path)
            else:
                _sync_file(path)
        sync_directory(temporary)
        if _names(directory) != names:
            raise CheckpointError(
                f"{directory} was changed by somebody else meanwhile, and is left as it is: give another directory"
            )
        _settle(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        release(temporary)


def _settle(temporary: Path, directory: Path) -> None:
    beside = report_beside(directory)
    if holds_model(directory) and not holds_model(temporary):
        os.replace(temporary / REPORT, beside)
        sync_directory(beside.parent)
        temporary.rmdir()
        return
    if directory.exists():
        _replace(temporary, directory)
    else:
        rename_durably(temporary, directory)
    beside.unlink(missing_ok=True)


def _replace(temporary: Path, directory: Path) -> None:
    replaced = _replaced(directory)
    try:
        rename_durably(directory, replaced)
        rename_durably(temporary, directory)
    except BaseException:
        _put_back(directory)
        raise
    shutil.rmtree(replaced)


def _put_back(directory: Path) -> None:
    """Undo the first half of a replacement whose second never came."""
    replaced = _replaced(directory)
    if replaced.is_dir() and not directory.exists():
        rename_durably(replaced, directory)


def _clean(directory: Path) -> None:
    """Remove what killed conversions to `directory` left beside it."""
    parent = directory.absolute().parent
    for path in parent.iterdir():
        if path.name.startswith(f"{TEMPORARY_PREFIX}{directory.name}@") and maker_is_gone(path):
            shutil.rmtree(path, ignore_errors=True)
    if directory.exists():
        shutil.rmtree(_replaced(directory), ignore_errors=True)


def _replaced(directory: Path) -> Path:
    return directory.absolute().parent / f"{REPLACED_PREFIX}{directory.name}"


def _written(directory: Path) -> set[str]:
    """Names in `directory` that its report lists."""
    try:
        return {Path(name).parts[0] for name in json.loads((directory / REPORT).read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
