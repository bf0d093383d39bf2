"""Says in one sentence that a store does not answer, or does not let us in: its libraries have errors of many kinds for that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from megatron.checkpointing.errors import reason_of
from megatron.checkpointing.places import is_local
from megatron.errors import CheckpointError, NeoXError


@contextlib.contextmanager
def asking(directory: Path) -> Iterator[None]:
    """Around what first looks into a directory of checkpoints: an error of its store becomes a CheckpointError. Local errors pass."""
    try:
        yield
    except NeoXError:
        raise
    except Exception as error:
        if is_local(directory):
            raise
        raise CheckpointError(f"{directory} cannot be reached: {_explained(error)}") from error


def missing_bucket(directory: Path) -> str | None:
    """The name of the bucket that a place is said to lie in, when there is none that we may see."""
    if is_local(directory):
        return None
    remote = cast("Any", directory)
    bucket: str = remote.drive
    return bucket if bucket and not remote.fs.exists(bucket) else None


def _explained(error: Exception) -> str:
    reason = f"{type(error).__name__}: {reason_of(error)}"
    if isinstance(error, PermissionError):
        return f"access is denied ({reason}); check the credentials in the environment, and what they allow"
    if "Credential" in type(error).__name__:
        return f"there are no credentials ({reason}); give them in the environment, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return reason
