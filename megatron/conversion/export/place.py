"""The directory of an exported model: there whole or not at all, and never in the place of something else."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from megatron.atomic import sync_directory
from megatron.checkpointing.files import make_directories, rename_durably, temporary_path
from megatron.checkpointing.places import is_local, place
from megatron.errors import CheckpointError

REPORT = "conversion_report.json"


def output_directory(text: str | Path, *, overwrite: bool) -> Path:
    """The directory to write. Raises CheckpointError for one of a store, and for one that holds something.

    What holds nothing but the report of a conversion that failed counts as empty; a converted model is replaced with `overwrite` only, and
    whatever else never.
    """
    directory = place(text)
    if not is_local(directory):
        raise CheckpointError(
            f"{text} is in a store, and a model is written to a directory of this machine, which may be uploaded afterwards"
        )
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise CheckpointError(f"{directory} exists and is no directory: give another name")
    names = _names(directory)
    if not names <= {REPORT}:
        if REPORT not in names:
            raise CheckpointError(f"{directory} holds something else than a converted model: give another directory")
        if not overwrite:
            raise CheckpointError(f"{directory} holds a converted model: give another directory, or --overwrite")
    return directory


@contextlib.contextmanager
def directory_to_be(directory: Path) -> Iterator[Path]:
    """An empty directory beside `directory`, which takes its place (and that of what is there) when the block ends, and vanishes when it raises.

    Raises CheckpointError at the end when something has been added to `directory` meanwhile.
    """
    names = _names(directory)
    parent = directory.absolute().parent
    make_directories(parent)
    temporary = temporary_path(parent, directory.name)
    temporary.mkdir()
    try:
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
        if directory.exists():
            _replace(temporary, directory)
        else:
            rename_durably(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _replace(temporary: Path, directory: Path) -> None:
    replaced = temporary_path(directory.absolute().parent, directory.name)
    os.rename(directory, replaced)
    rename_durably(temporary, directory)
    shutil.rmtree(replaced)


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
