"""Files that `torch.save` wrote elsewhere, read without running what they may contain: a pickle can name any function to be called."""

from __future__ import annotations

import errno
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from megatron.checkpointing.errors import reason_of
from megatron.conversion.reading.safe_classes import safe_names
from megatron.errors import CheckpointError

_ZIP = b"PK\x03\x04"
_LARGEST_POINTER = 4096
_POINTER = b"version https://git-lfs"
# How torch names what its restricted unpickler would have to import, to call, or to fill.
_NEEDED = re.compile(r"(?:GLOBAL|function|got) (?:<(?:class|function) ')?([A-Za-z_][\w.]*\.\w+)")


def read_pickled(path: Path, *, trusted: bool) -> Any:
    """What a file of `torch.save` holds, on the CPU; tensors stay on the disk until they are used, where the format allows it.

    trusted: build whatever the file names, which runs its code. Otherwise only tensors, plain values and what `safe_classes` lists. Files of
    torch before 1.6 cannot be mapped and are read whole. Raises CheckpointError when the file needs more than that, is damaged or missing.
    """
    path = Path(path)
    check_is_there(path)
    # Neither the import of DeepSpeed nor anything of the file happens here: the list pairs names with what is built for them.
    with torch.serialization.safe_globals(safe_names()):
        try:
            return torch.load(path, mmap=_can_be_mapped(path), map_location="cpu", weights_only=not trusted)
        except OSError as error:
            if error.errno == errno.EINVAL:  # it points behind its end
                raise _damaged(path) from error
            raise CheckpointError(f"{path} cannot be read ({reason_of(error)})") from error
        except pickle.UnpicklingError as error:
            needed = _NEEDED.search(str(error))
            if trusted or not needed:
                raise _damaged(path) from error
            raise CheckpointError(
                f"{path} names {needed[1]}, which is more than tensors and plain values, and reading it would run what the file says: "
                "if you know who made it, set trust_checkpoint: true"
            ) from error
        except Exception as error:
            raise _damaged(path) from error


def check_is_there(path: Path) -> None:
    """Raise CheckpointError for a file that cannot be read, or that only stands for a large one in a repository."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(len(_POINTER))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({reason_of(error)})") from error
    if size < _LARGEST_POINTER and begin == _POINTER:
        raise CheckpointError(f"{path} is only a pointer to a large file: fetch it with git lfs pull")


def _can_be_mapped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or incomplete ({path.stat().st_size} bytes), or no file of torch.save: fetch it again"
    )
