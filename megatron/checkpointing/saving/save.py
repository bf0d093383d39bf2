"""Writes a checkpoint so that a crash at any moment leaves the previous one as it was.

All ranks write into a temporary directory and synchronise their files; the first rank adds the state and the manifest, renames
the directory to its final name, and only then points `latest` at it. Taking the snapshot and writing it are two functions: with
copies, writing may go on in another thread (over a group of its own) while the run trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.metadata import Metadata

from megatron.atomic import sync_directory
from megatron.checkpointing.files import (
    FileFacts,
    make_directories,
    remove_tree,
    rename_durably,
    temporary_path,
    write_durably,
)
from megatron.checkpointing.layout import REPLACED_PREFIX, checkpoint_name, write_latest
from megatron.checkpointing.manifest import file_facts, write_manifest
from megatron.checkpointing.names import is_weight
from megatron.checkpointing.places import is_local, place
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.remote.publish import Upload
from megatron.checkpointing.remote.write import check_can_upload, write_remote_snapshot
from megatron.checkpointing.saving.hashing_writer import HashingWriter
from megatron.checkpointing.saving.host_copies import HostCopies
from megatron.checkpointing.saving.lock import hold
from megatron.checkpointing.saving.snapshot import Snapshot, small_files, write_tensors
from megatron.checkpointing.saving.temporaries import claim, clean_directory, discard, release
from megatron.engine.protocol import Engine, FullTensor
from megatron.errors import CheckpointError
from megatron.foreign import is_step_of_neox
from megatron.mpu.groups import Group


def check_can_save(directory: str | Path, *, group: Group) -> None:
    """Make `directory`, keep other runs out of it until this process ends, and try to write there (all ranks of `group` call this).

    So a run learns before it has trained that it cannot save. Raises CheckpointError on every rank when that is so, or when another run
    saves there.
    """
    directory = place(directory)
    ranks = Ranks(group, doing=f'trying to write to {directory} (the key "save")')
    ranks.first(lambda: _take_directory(directory) if is_local(directory) else check_can_upload(directory))


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
    copies: HostCopies | None = None,
) -> Snapshot:
    """What is to be saved, as views of the engine's tensors; with `copies` as copies there, which later steps do not change."""
    tensors = tensors_to_save(engine, save_optimizer=save_optimizer)
    if copies is not None:
        tensors = copies.take(tensors)
    return Snapshot(iteration, tensors, engine.state_scalars(), dict(run_state), config_yaml, dict(files or {}))


def tensors_to_save(engine: Engine, *, save_optimizer: bool = True) -> dict[str, FullTensor]:
    """This rank's pieces of everything that a checkpoint holds, as views."""
    tensors = engine.state_tensors(for_saving=True)
    return tensors if save_optimizer else {name: tensor for name, tensor in tensors.items() if is_weight(name)}


def write_snapshot(directory: str | Path, snapshot: Snapshot, *, group: Group, upload: Upload | None = None) -> Path:
    """Write a snapshot (all ranks of `group` call this); returns its directory. Errors as in `save_checkpoint`.

    upload: how, where `directory` is the URL of a store.
    """
    directory = place(directory)
    if not is_local(directory):
        return write_remote_snapshot(directory, snapshot, group=group, how=upload or Upload())
    final = directory / checkpoint_name(snapshot.iteration)
    ranks = Ranks(group, doing=f"saving {final}")
    temporary = ranks.first(lambda: _make_temporary(directory, final.name))
    try:
        ranks.every(lambda: _check_visible(temporary))
        writer = HashingWriter(temporary)
        metadata = write_tensors(snapshot.tensors, writer, ranks)
        written = ranks.every(writer.facts)
        ranks.first(lambda: _publish(temporary, final, snapshot, metadata, written))
    except BaseException:
        if group.rank == 0:
            remove_tree(temporary)
        raise
    finally:
        release(temporary)
    return final


def _take_directory(directory: Path) -> None:
    make_directories(directory)
    hold(directory)
    temporary = _make_temporary(directory, "trial")
    temporary.rmdir()
    release(temporary)


def _make_temporary(directory: Path, name: str) -> Path:
    make_directories(directory)
    clean_directory(directory)
    temporary = claim(temporary_path(directory, name))
    try:
        temporary.mkdir()
    except BaseException:
        release(temporary)
        raise
    return temporary


def _check_visible(temporary: Path) -> None:
    if not temporary.is_dir():
        raise CheckpointError(f"{temporary} is not visible here: all nodes must share the file system of `save`")


def _publish(temporary: Path, final: Path, snapshot: Snapshot, metadata: Metadata, written: list[FileFacts]) -> None:
    """Complete the checkpoint, give it its name, and make it the latest."""
    complete(temporary, snapshot, metadata, written)
    replaced = final.with_name(REPLACED_PREFIX + final.name)
    if final.exists():
        if is_step_of_neox(final):
            raise CheckpointError(f"{final} is a checkpoint of GPT-NeoX, which is not replaced")
        rename_durably(final, replaced)
    rename_durably(temporary, final)
    write_latest(final.parent, snapshot.iteration)
    if replaced.exists():
        discard(replaced)


def complete(checkpoint: Path, snapshot: Snapshot, metadata: Metadata, written: list[FileFacts]) -> None:
    """Write all files but those of the tensors, which are there. written: by every rank."""
    files = {name: facts for of_rank in written for name, facts in of_rank.items()}
    for name, data in small_files(snapshot, metadata, world_size=len(written)).items():
        (checkpoint / name).parent.mkdir(exist_ok=True)
        write_durably(checkpoint / name, data)
        files[name] = file_facts(data)
    write_manifest(checkpoint, files)
    for directory in (checkpoint / "configs", checkpoint):
        sync_directory(directory)
