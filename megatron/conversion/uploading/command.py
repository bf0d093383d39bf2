"""What upload.py does: checks the directory, shows what is in it, and sends it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from megatron.conversion.hub.names import HubName, is_repository
from megatron.conversion.uploading.card import CARD
from megatron.conversion.uploading.model_files import ModelFiles, model_files
from megatron.errors import CheckpointError
from megatron.text import table

Line = Sequence[tuple[str, str]]
Show = Callable[[Iterable[Line]], None]
"""Prints lines."""


def run(args: argparse.Namespace, show: Show) -> int:
    """Do what the command line says; the exit status. Raises NeoXError for a user's mistake."""
    target = HubName(args.repository, args.branch)
    if not is_repository(args.repository):
        raise CheckpointError(f'"{args.repository}" is no name of a repository: give ORGANISATION/NAME')
    files = model_files(Path(args.directory).expanduser(), unproven=args.unproven)
    show(_listing(files, target))
    if args.dry_run:
        show([[("dry run: nothing was uploaded", "")]])
        return 0
    from huggingface_hub.utils import disable_progress_bars  # a slow import

    from megatron.conversion.uploading.send import send

    if not sys.stderr.isatty():  # in a log file every step of a bar would be a line
        disable_progress_bars()
    sent = send(files, target, message=args.message, create=args.create, private=args.private)
    if sent.deleted:
        show([[(f"deleted files of an earlier model: {', '.join(sent.deleted)}", "yellow")]])
    done = "uploaded" if sent.changed else "nothing has changed: this is already there"
    show([[(f"{done}: {sent.url}" if sent.changed else f"{done}, at commit {sent.commit}", "green")]])
    return 0


def _listing(files: ModelFiles, target: HubName) -> list[Line]:
    """A table of names and sizes in bytes."""
    rows = [(name, f"{size:,}") for name, size in files.sizes.items()]
    if CARD not in files:
        rows.append((CARD, "written from the report, if the repository has none"))
    total = f"{sum(files.sizes.values()):,}"
    width = max(len(name) for name, _ in rows)
    lines: list[Line] = [[(f"{files.directory} -> {target}", "bold")]]
    numbers = table([*((name, size) for name, size in rows if name in files), ("total".ljust(width), total)], right=[1])
    lines += [[(f"  {line}", "")] for line in numbers]
    lines += [[(f"  {name}  {remark}", "dim")] for name, remark in rows if name not in files]
    if files.left_out:
        lines.append([(f"  left out: {', '.join(files.left_out)}", "dim")])
    return lines
