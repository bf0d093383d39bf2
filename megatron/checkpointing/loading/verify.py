"""Verifies a checkpoint by all ranks together, each of which hashes a share of the files."""

from __future__ import annotations

from pathlib import Path

from megatron.checkpointing.balance import balanced
from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.files import FileFacts
from megatron.checkpointing.manifest import Verification, check_file, check_files, is_hashed_when_full, read_manifest
from megatron.checkpointing.ranks import Ranks


def verify(checkpoint: Path, verification: Verification, ranks: Ranks) -> None:
    """`check_files` by all ranks of a group together (collective): the first one does the fast check, and "full" hashes are shared out.

    No file is hashed twice. Raises DamagedCheckpoint on every rank, naming each file that is not as it was written.
    """
    listed = ranks.first(lambda: _checked_fast(checkpoint))
    if verification == "fast":
        return
    mine = balanced({name: facts["size"] for name, facts in listed.items()}, ranks.group.size)[ranks.group.rank]
    found = ranks.every(lambda: _problems(checkpoint, {name: listed[name] for name in mine}))
    ranks.first(lambda: _raise([problem for of_rank in found for problem in of_rank]))


def _checked_fast(checkpoint: Path) -> FileFacts:
    """The files that are still to be hashed, after the fast check."""
    check_files(checkpoint, "fast")
    return {name: facts for name, facts in read_manifest(checkpoint) if is_hashed_when_full(name)}


def _problems(checkpoint: Path, files: FileFacts) -> list[str]:
    problems = []
    for name, facts in files.items():
        try:
            check_file(checkpoint / name, facts, hashed=True)
        except DamagedCheckpoint as error:
            problems.append(str(error))
    return problems


def _raise(problems: list[str]) -> None:
    if problems:
        raise DamagedCheckpoint("; ".join(sorted(problems)))
