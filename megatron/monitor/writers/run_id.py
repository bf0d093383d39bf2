"""The id under which a service knows a run: kept beside the checkpoints, so that a run which goes on from them is the same run there."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from megatron.atomic import atomic_file
from megatron.monitor.writers.base import Process
from megatron.neox_arguments import NeoXArgs


def run_id(args: NeoXArgs, process: Process, *, service: str) -> str:
    """32 hexadecimal digits: those of the run that is continued, else new ones, in the file `<save>/<service>_run_id`.

    Each rank has its own (`.rank3` behind the name, but for rank 0). A run starts anew when it does not go on from a checkpoint, or its
    checkpoints lie elsewhere than those it was loaded from: then it is another branch, and the first one may have gone on as well.
    """
    if not args.save:
        return secrets.token_hex(16)
    suffix = f".rank{process.rank}" if process.rank else ""
    path = Path(args.save) / f"{service}_run_id{suffix}"
    known = _read(path) if process.resumed else None
    if known is not None:
        return known
    created = secrets.token_hex(16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(f"{created}\n".encode())
    return created


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="ascii").strip() or None
    return None
