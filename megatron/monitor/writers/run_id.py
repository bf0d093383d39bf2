"""The id under which a service knows a run: kept beside the checkpoints, so that a run which goes on from them is the same run there."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path

from megatron.atomic import atomic_file
from megatron.monitor.writers.base import Process
from megatron.neox_arguments import NeoXArgs


def run_id(args: NeoXArgs, process: Process, *, service: str) -> str:
    """32 hexadecimal digits: those of the run that is continued, else new ones, in the file `<save>/<service>_run_id` (or of a URL).

    Each rank has its own (`.rank3` behind the name, but for rank 0). A run starts anew when it does not go on from a checkpoint, or its
    checkpoints lie elsewhere than those it was loaded from: then it is another branch, and the first one may have gone on as well.
    """
    if not args.save:
        return secrets.token_hex(16)
    suffix = f".rank{process.rank}" if process.rank else ""
    name = f"{service}_run_id{suffix}"
    read, write = _in_store(args.save, name) if "://" in args.save else _in_directory(Path(args.save), name)
    known = _known(read) if process.resumed else None
    if known is not None:
        return known
    created = secrets.token_hex(16)
    write(f"{created}\n".encode())
    return created


def _in_directory(directory: Path, name: str) -> tuple[Callable[[], bytes], Callable[[bytes], None]]:
    """How to read and to write a file of a directory."""

    def write(content: bytes) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_file(directory / name) as file:
            file.write(content)

    return (directory / name).read_bytes, write


def _in_store(url: str, name: str) -> tuple[Callable[[], bytes], Callable[[bytes], None]]:
    """How to read and to write a file below a URL."""
    from fsspec.core import url_to_fs  # needed here alone

    store, key = url_to_fs(f"{url.rstrip('/')}/{name}")
    return lambda: store.cat_file(key), lambda content: store.pipe_file(key, content)


def _known(read: Callable[[], bytes]) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return read().decode("ascii").strip() or None
    return None
