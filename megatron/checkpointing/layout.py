"""Where checkpoints lie, and which of those in a directory are complete.

SAVE/latest                 text: the name of the checkpoint to go on from
SAVE/global_step{N}/        one checkpoint; it appears under this name only when all of it is on the disk
    *.distcp, .metadata     fp32 weights and optimizer state, written by torch.distributed.checkpoint
    state.json              iteration, counters, scalars of the optimizer, names and shapes of the tensors, versions
    data.json               what it was trained on and in which order (megatron/data/ledger/segments.py)
    configs/config.yml      the configuration of the run
    forward_pass.json       losses of a forward pass, where a run keeps them (megatron/training/forward_check.py)
    manifest.json           size and SHA-256 of every other file
SAVE/.lock                  who saves here, locked while that run lives (saving/lock.py)
SAVE/.tmp-*                 being written or deleted: never read, cleaned up by a later save
SAVE/.replaced-global_step{N}   the earlier checkpoint of that iteration, only while it is being replaced
SAVE/wandb_run_id, comet_run_id[.rank{N}]   under which a resumed run goes on at these services (megatron/monitor/writers/run_id.py)

In a store nothing can be locked or renamed. Instead of the last entries but one there are:
SAVE/.owner.json            who saves here; a run that finds another one there stops (remote/ownership.py)
SAVE/global_step{N}/.tmp-*  it is being uploaded, and by whom (remote/publish.py); no checkpoint without its manifest counts
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.files import replace_durably
from megatron.checkpointing.manifest import MANIFEST, check_files
from megatron.checkpointing.places import is_local, place
from megatron.checkpointing.remote.objects import object_of
from megatron.checkpointing.remote.reach import asking, missing_bucket
from megatron.errors import CheckpointError
from megatron.foreign import shortened, what_is_there

LATEST = "latest"
REPLACED_PREFIX = ".replaced-"
_NAME = re.compile(r"global_step(\d+)")


@dataclass(frozen=True, order=True)
class CheckpointPath:
    """A checkpoint directory, complete or not."""

    iteration: int
    path: Path


def checkpoint_name(iteration: int) -> str:
    """`global_step{N}`."""
    return f"global_step{iteration}"


def iteration_of(checkpoint: Path) -> int:
    """The iteration of a checkpoint, by its name."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match, f"{checkpoint} is not called like a checkpoint"
    return int(match[1])


def existing_checkpoints(directory: Path) -> list[CheckpointPath]:
    """Every checkpoint in a directory by rising iteration, whether or not it is complete; none when there is no directory.

    One that a crash left set aside (`.replaced-...`) counts while no other has its name.
    """
    found: dict[int, Path] = {}
    paths = sorted(directory.iterdir(), reverse=True) if directory.is_dir() else []
    for path in paths:  # "global..." before ".replaced..."
        match = _NAME.fullmatch(path.name.removeprefix(REPLACED_PREFIX))
        if match and path.is_dir():
            found.setdefault(int(match[1]), path)
    return [CheckpointPath(iteration, found[iteration]) for iteration in sorted(found)]


def list_checkpoints(directory: str | Path) -> list[CheckpointPath]:
    """The complete checkpoints in a directory (all files there, of the right sizes) by rising iteration."""
    return [found for found in existing_checkpoints(place(directory)) if _is_complete(found.path)]


def find_checkpoint(directory: str | Path, *, iteration: int | None = None) -> Path:
    """The checkpoint that loading would begin with: of `iteration`, else the one `latest` names, else the newest complete one.

    Raises CheckpointError, saying what is there, when there is none.
    """
    reasons = []
    directory = place(directory)
    with asking(directory):
        candidates = checkpoint_candidates(directory, iteration=iteration)
    for candidate in candidates:
        try:
            check_files(candidate.path)
        except DamagedCheckpoint as error:
            reasons.append(str(error))
        else:
            return candidate.path
    raise CheckpointError(no_loadable_checkpoint(directory, reasons))


def checkpoint_candidates(directory: Path, *, iteration: int | None = None) -> list[CheckpointPath]:
    """The checkpoints to try, best first: the one `latest` names, then earlier ones, then (only if all those fail) later ones.

    `directory` may itself be a checkpoint. With `iteration`, that one alone. Raises CheckpointError, saying what is there,
    when the list would be empty.
    """
    itself = _as_checkpoint(directory)
    if itself and iteration in (None, itself.iteration):
        return [itself]
    if itself:
        raise CheckpointError(
            f"{directory} is the checkpoint of iteration {itself.iteration}, not of {iteration}: give {directory.parent}, the directory "
            "it is in, or leave out the iteration"
        )
    existing = existing_checkpoints(directory)
    if iteration is not None:
        wanted = [found for found in existing if found.iteration == iteration]
        if not wanted:
            raise CheckpointError(
                f"{directory} holds no checkpoint of iteration {iteration}: {describe_directory(directory)}"
            )
        return wanted
    if not existing:
        raise CheckpointError(f"there is no checkpoint to load in {directory}: {describe_directory(directory)}")
    newest_first = existing[::-1]
    latest = read_latest(directory)
    if latest is None:
        return newest_first
    return sorted(newest_first, key=lambda found: found.iteration > latest)  # stable: still newest first on either side


def is_empty(directory: Path) -> bool:
    """Whether nothing was ever saved here: neither a checkpoint (complete or not) nor `latest`.

    Raises CheckpointError when the directory is in a store that does not answer or does not let us in.
    """
    with asking(directory):
        return not (_as_checkpoint(directory) or existing_checkpoints(directory) or (directory / LATEST).exists())


def read_latest(directory: Path) -> int | None:
    """The iteration that `latest` names; None when there is no such file or it names nothing we could have written."""
    try:
        match = _NAME.fullmatch((directory / LATEST).read_text().strip())
    except (OSError, UnicodeDecodeError):
        return None
    return int(match[1]) if match else None


def latest_problem(directory: Path) -> str | None:
    """Why `latest` in a directory of checkpoints cannot be followed; None when it can."""
    path = directory / LATEST
    if _as_checkpoint(directory):
        return None
    if not path.exists():
        return f"{path} is missing"
    latest = read_latest(directory)
    if latest is None:
        return f"{path} does not name a checkpoint"
    if all(found.iteration != latest for found in existing_checkpoints(directory)):
        return f"{path} names {checkpoint_name(latest)}, which is not there"
    return None


def write_latest(directory: Path, iteration: int) -> None:
    """Point `latest` at a checkpoint, in one step."""
    content = f"{checkpoint_name(iteration)}\n".encode()
    if is_local(directory):
        replace_durably(directory / LATEST, content)
    else:
        object_of(directory / LATEST).write(content)


def describe_directory(directory: Path) -> str:
    """What is there instead of what was asked for, as the end of a sentence."""
    if bucket := missing_bucket(directory):
        return f'the bucket "{bucket}" does not exist, or may not be seen'
    complete = [found.path.name for found in list_checkpoints(directory)]
    parts = [f"complete checkpoints: {shortened(complete)}"] if complete else []
    parts += [str(problem) for problem in _problems(directory)]
    return "; ".join(parts) or what_is_there(directory)


def no_loadable_checkpoint(directory: str | Path, reasons: list[str]) -> str:
    """The sentence for a directory in which every candidate is damaged."""
    return f"no checkpoint in {directory} can be loaded: {'; '.join(reasons)}"


def _as_checkpoint(directory: Path) -> CheckpointPath | None:
    """`directory` itself, when it is not a directory of checkpoints but one of them."""
    match = _NAME.fullmatch(directory.name)
    return CheckpointPath(int(match[1]), directory) if match and (directory / MANIFEST).exists() else None


def _problems(directory: Path) -> list[DamagedCheckpoint]:
    problems = []
    itself = [directory] if _NAME.fullmatch(directory.name) and directory.is_dir() else []
    for path in [*itself, *(found.path for found in existing_checkpoints(directory))]:
        try:
            check_files(path)
        except DamagedCheckpoint as error:
            problems.append(error)
    return problems


def _is_complete(path: Path) -> bool:
    try:
        check_files(path)
    except DamagedCheckpoint:
        return False
    return True
