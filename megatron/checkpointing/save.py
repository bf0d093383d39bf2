"""Writes a checkpoint so that a crash at any moment leaves the previous one as it was.

All ranks write into a temporary directory and synchronise their files; the first rank adds the state and the manifest, renames
the directory to its final name, and only then points `latest` at it. Taking the snapshot and writing it are two functions, so
that writing can move to the background.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_saver import save
from torch.serialization import get_crc32_options, set_crc32_options

from megatron.atomic import sync_directory
from megatron.checkpointing.files import (
    FileFacts,
    remove_tree,
    rename_durably,
    temporary_path,
    write_durably,
)
from megatron.checkpointing.fit import is_weight
from megatron.checkpointing.layout import REPLACED_PREFIX, checkpoint_name, write_latest
from megatron.checkpointing.manifest import file_facts, write_manifest
from megatron.checkpointing.planners import PieceSavePlanner
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.state_file import STATE, state_content
from megatron.checkpointing.storage import HashingWriter
from megatron.checkpointing.temporaries import clean_directory, discard
from megatron.engine.protocol import Engine, FullTensor, Piece
from megatron.errors import CheckpointError
from megatron.mpu.groups import Group


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one iteration: this rank's pieces of the tensors, and everything else. files: contents by name."""

    iteration: int
    tensors: dict[str, FullTensor]
    scalars: dict[str, float | int]
    run_state: Mapping[str, Any]
    config_yaml: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


def check_can_save(directory: str | Path, *, group: Group) -> None:
    """Make `directory` and try to write there (all ranks of `group` call this), so that a run learns it before it has trained.

    Raises CheckpointError on every rank when that fails.
    """
    directory = Path(directory)
    ranks = Ranks(group, doing=f'trying to write to {directory} (the key "save")')
    ranks.first(lambda: _make_temporary(directory, "trial").rmdir())


def save_checkpoint(
    directory: str | Path,
    engine: Engine,
    *,
    iteration: int,
    run_state: Mapping[str, Any],
    config_yaml: str | None = None,
    files: Mapping[str, bytes] | None = None,
    save_optimizer: bool = True,
) -> Path:
    """Save the engine's state as `directory/global_step{iteration}` and point `latest` at it (all ranks call this).

    run_state: what JSON can hold, given back on loading; config_yaml: text for `configs/config.yml`; files: contents of further files
    by name, those of the first rank. A checkpoint of the same iteration is replaced. Raises CheckpointError on every rank when any of
    them fails; earlier checkpoints are then untouched.
    """
    snapshot = take_snapshot(
        engine,
        iteration=iteration,
        run_state=run_state,
        config_yaml=config_yaml,
        files=files,
        save_optimizer=save_optimizer,
    )
    return write_snapshot(directory, snapshot, group=engine.groups.world)


def take_snapshot(
    engine: Engine,
    *,
    iteration: int,
    run_state: Mapping[str, Any],
    config_yaml: str | None = None,
    files: Mapping[str, bytes] | None = None,
    save_optimizer: bool = True,
    copy: bool = False,
) -> Snapshot:
    """What is to be saved, as views of the engine's tensors; with `copy` as CPU copies that later steps do not change."""
    tensors = engine.state_tensors(for_saving=True)
    if not save_optimizer:
        tensors = {name: tensor for name, tensor in tensors.items() if is_weight(name)}
    if copy:
        tensors = {name: _copied(tensor) for name, tensor in tensors.items()}
    return Snapshot(iteration, tensors, engine.state_scalars(), dict(run_state), config_yaml, files or {})


def write_snapshot(directory: str | Path, snapshot: Snapshot, *, group: Group) -> Path:
    """Write a snapshot (all ranks of `group` call this); returns its directory. Errors as in `save_checkpoint`."""
    directory = Path(directory)
    final = directory / checkpoint_name(snapshot.iteration)
    ranks = Ranks(group, doing=f"saving {final}")
    temporary = ranks.first(lambda: _make_temporary(directory, final.name))
    try:
        ranks.every(lambda: _check_visible(temporary))
        writer = HashingWriter(temporary)
        metadata = _write_tensors(snapshot.tensors, writer, ranks)
        written = ranks.every(writer.facts)
        ranks.first(lambda: _publish(temporary, final, snapshot, metadata, written))
    except BaseException:
        if group.rank == 0:
            remove_tree(temporary)
        raise
    return final


def _make_temporary(directory: Path, name: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    clean_directory(directory)
    temporary = temporary_path(directory, name)
    temporary.mkdir()
    return temporary


def _check_visible(temporary: Path) -> None:
    if not temporary.is_dir():
        raise CheckpointError(f"{temporary} is not visible here: all nodes must share the file system of `save`")


def _write_tensors(tensors: dict[str, FullTensor], writer: HashingWriter, ranks: Ranks) -> Metadata:
    with _plain_archives(), ranks.together():
        metadata: Metadata = save(
            tensors,
            storage_writer=writer,
            planner=PieceSavePlanner(),
            process_group=ranks.group.handle,
            no_dist=ranks.group.handle is None,
        )
    return metadata


@contextlib.contextmanager
def _plain_archives() -> Iterator[None]:
    """Without the archives' own CRC32: the manifest's SHA-256 covers them, and it halves the time of writing."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)


def _publish(temporary: Path, final: Path, snapshot: Snapshot, metadata: Metadata, written: list[FileFacts]) -> None:
    """Complete the checkpoint, give it its name, and make it the latest."""
    files = {name: facts for of_rank in written for name, facts in of_rank.items()}
    content = {STATE: _state(snapshot, metadata, world_size=len(written)), **snapshot.files}
    if snapshot.config_yaml is not None:
        (temporary / "configs").mkdir()
        content["configs/config.yml"] = snapshot.config_yaml.encode()
    for name, data in content.items():
        write_durably(temporary / name, data)
        files[name] = file_facts(data)
    write_manifest(temporary, files)
    for directory in (temporary / "configs", temporary):
        sync_directory(directory)
    replaced = final.with_name(REPLACED_PREFIX + final.name)
    if final.exists():
        rename_durably(final, replaced)
    rename_durably(temporary, final)
    write_latest(final.parent, snapshot.iteration)
    if replaced.exists():
        discard(replaced)


def _state(snapshot: Snapshot, metadata: Metadata, *, world_size: int) -> bytes:
    return state_content(
        metadata,
        iteration=snapshot.iteration,
        run_state=snapshot.run_state,
        scalars=snapshot.scalars,
        world_size=world_size,
    )


def _copied(tensor: FullTensor) -> FullTensor:
    pieces = tuple(Piece(piece.offsets, piece.tensor.detach().to("cpu", copy=True)) for piece in tensor.pieces)
    return FullTensor(tensor.shape, pieces)
