"""The local directory of a model that is given by name, here or on the Hugging Face Hub (see `names`)."""

from __future__ import annotations

from pathlib import Path

from megatron.checkpointing.ranks import Ranks
from megatron.conversion.hub.cache import Snapshot, directory_of, download, find_snapshot
from megatron.conversion.hub.names import parse_hub_name
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE, Group, build_saving_group


def model_directory(text: str, *, group: Group = SINGLE, local_rank: int = 0) -> Path:
    """The local directory of a model that `hf:PATH` or `hf:ORG/NAME[@REVISION]` names; collective over `group`, by default this process alone.

    A model of the Hub is downloaded by the ranks with `local_rank` 0, one a node, while the others wait; what the cache has is not
    downloaded again. The first rank finds out which commit a branch is at, so that all nodes have the same. Raises CheckpointError on every
    rank.
    """
    doing = f"getting {text}"
    found = Ranks(group, doing).first(lambda: _find(text))
    if isinstance(found, Path):
        Ranks(group, doing).every(lambda: _check_visible(found))
        return found
    # A download may take longer than a collective of the run may.
    ranks = Ranks(build_saving_group(group), doing)
    ranks.every(lambda: download(found) if local_rank == 0 else None)
    directories: list[Path] = []
    ranks.every(lambda: directories.append(directory_of(found)))
    return directories[0]


def _find(text: str) -> Path | Snapshot:
    name = parse_hub_name(text)
    return name if isinstance(name, Path) else find_snapshot(name)


def _check_visible(directory: Path) -> None:
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not visible here: all nodes must share its file system")
