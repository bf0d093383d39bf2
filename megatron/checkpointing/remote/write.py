"""Writes a checkpoint into a store: each rank by way of a staging directory on its own node, so no file system need be shared.

A crash at any moment leaves no checkpoint without its manifest; what lies in staging directories is removed by a later save on that node.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from megatron.checkpointing.files import FileFacts, remove_tree, temporary_path
from megatron.checkpointing.layout import checkpoint_name
from megatron.checkpointing.manifest import file_facts
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.remote.objects import object_of
from megatron.checkpointing.remote.ownership import take
from megatron.checkpointing.remote.publish import Upload, begin, publish, upload_content, upload_file
from megatron.checkpointing.remote.reach import asking
from megatron.checkpointing.saving.hashing_writer import HashingWriter
from megatron.checkpointing.saving.snapshot import Snapshot, small_files, write_tensors
from megatron.checkpointing.saving.temporaries import claim, clean_directory, release
from megatron.mpu.groups import Group


def write_remote_snapshot(directory: Path, snapshot: Snapshot, *, group: Group, how: Upload) -> Path:
    """`write_snapshot` into a directory that is a URL (all ranks of `group` call this).

    An earlier checkpoint of this iteration is deleted when every file is staged, before the first is uploaded.
    """
    final = directory / checkpoint_name(snapshot.iteration)
    ranks = Ranks(group, doing=f"saving {final} by way of {tempfile.gettempdir()} (TMPDIR names another place)")
    staging: list[Path] = []
    marks: list[Path] = []
    try:
        ranks.every(lambda: staging.append(_make_staging(final.name)))
        writer = HashingWriter(staging[0])
        metadata = write_tensors(snapshot.tensors, writer, ranks)
        ranks.first(lambda: marks.append(begin(final)))
        written = ranks.every(lambda: _upload(staging[0], final, writer.facts(), how))

        def complete() -> None:
            files = {name: facts for of_rank in written for name, facts in of_rank.items()}
            for name, content in small_files(snapshot, metadata, world_size=group.size).items():
                files[name] = file_facts(content)
                upload_content(content, final / name, files[name], how)
            publish(final, marks[0], files, latest=snapshot.iteration)

        ranks.first(complete)
    finally:
        for path in staging:
            remove_tree(path)
        for path in (*staging, *marks):
            release(path)
    return final


def check_can_upload(directory: Path) -> None:
    """Write a small file into a directory that is a URL, delete it, and say there who saves from now on.

    Raises CheckpointError saying why that cannot be done.
    """
    trial = object_of(temporary_path(directory, "trial"))
    with asking(directory):
        trial.write(b"")
        trial.remove()
        take(directory)


def _make_staging(name: str) -> Path:
    """A new directory of this process's own. The user's number is in its parent's name: others' cannot be written to."""
    parent = Path(tempfile.gettempdir()) / f"checkpoints-of-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    clean_directory(parent)
    staging = claim(temporary_path(parent, name))
    staging.mkdir()
    return staging


def _upload(staging: Path, final: Path, files: FileFacts, how: Upload) -> FileFacts:
    """Upload what this rank has staged, each file deleted here as soon as it is there."""
    for name, facts in files.items():
        upload_file(staging / name, final / name, facts, how)
        (staging / name).unlink()
    return files
