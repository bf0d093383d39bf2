"""Names of models in the format of Hugging Face: `hf:PATH` is a directory here, `hf:ORG/NAME[@REVISION]` a model of their Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megatron.errors import CheckpointError

PREFIX = "hf:"


@dataclass(frozen=True)
class HubName:
    """A model of the Hub. revision: a branch, a tag or a commit; None is the head of the main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def is_hub_name(text: str) -> bool:
    """Whether `text` names a model in the format of Hugging Face, here or on the Hub, rather than a directory of checkpoints."""
    return text.startswith(PREFIX)


def parse_hub_name(text: str) -> Path | HubName:
    """What follows `hf:`: a directory where one of that path exists, with the user's home for `~`, else a model of the Hub.

    Raises CheckpointError when it can be neither.
    """
    what = text.removeprefix(PREFIX)
    if not what:
        raise CheckpointError(f'"{text}" names no model: give {PREFIX}DIRECTORY or {PREFIX}ORGANISATION/NAME')
    path = Path(what).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f'"{text}" is a file: give the directory it lies in, {PREFIX}{path.parent}')
    repository, at, revision = what.partition("@")
    if not is_repository(repository):
        raise CheckpointError(
            f'"{text}" is not to be found: there is no directory {path}, and a model of the Hugging Face Hub is called '
            f"{PREFIX}ORGANISATION/NAME or {PREFIX}ORGANISATION/NAME@REVISION"
        )
    if at and not revision:
        raise CheckpointError(f'"{text}" ends with "@": write a branch, a tag or a commit behind it, or leave it out')
    return HubName(repository, revision or None)


def is_repository(text: str) -> bool:
    """Whether a repository of the Hub can have this name: NAME or ORGANISATION/NAME."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # a slow import

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True
