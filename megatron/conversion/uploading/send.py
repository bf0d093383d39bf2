"""Puts a model into a repository of the Hugging Face Hub with one commit, so that nobody ever sees half of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from megatron.conversion.hub.failures import one_sentence, patiently, revisions, token_state
from megatron.conversion.hub.files import is_model_file
from megatron.conversion.hub.names import HubName
from megatron.conversion.uploading.card import CARD, model_card
from megatron.conversion.uploading.model_files import ModelFiles
from megatron.errors import CheckpointError


@dataclass(frozen=True)
class Sent:
    """What an upload has done. deleted: files of an earlier model; changed: whether there was anything to do."""

    url: str
    commit: str
    deleted: tuple[str, ...]
    changed: bool


def send(files: ModelFiles, target: HubName, *, message: str, create: bool = False, private: bool = False) -> Sent:
    """Upload a model to the branch `target.revision`, or to the main one. Repeating it after a failure uploads only what is missing.

    create: the repository, which `private` hides from others, and the branch, from the main one, unless they exist. Raises CheckpointError.
    """
    with one_sentence(target, _advice):
        there = _ready(target, create=create, private=private)
        if private and not there.private:
            raise CheckpointError(
                f"{target.repository} exists and everybody can see it: make it private on its page, or leave out --private"
            )
        return patiently(lambda: _commit(files, target, message))


def _ready(target: HubName, *, create: bool, private: bool) -> ModelInfo:
    """The repository at its branch."""
    api = HfApi()

    def look() -> ModelInfo:
        return api.model_info(target.repository, revision=target.revision)

    try:
        return patiently(look)
    except RepositoryNotFoundError:
        if not create:
            raise
        patiently(lambda: api.create_repo(target.repository, private=private or None, exist_ok=True))
    except RevisionNotFoundError:
        if not create:
            raise
    if target.revision is not None:
        branch = target.revision
        patiently(lambda: api.create_branch(target.repository, branch=branch, exist_ok=True))
    return patiently(look)


def _commit(files: ModelFiles, target: HubName, message: str) -> Sent:
    """One commit on top of what is there now; a second try finds what the first has uploaded, or committed."""
    api = HfApi()
    head = api.model_info(target.repository, revision=target.revision)
    there = {file.rfilename for file in head.siblings or ()}
    stale = tuple(sorted(name for name in there if is_model_file(name) and name not in files))
    done: CommitInfo = api.create_commit(
        target.repository,
        [*_additions(files, target, there), *(CommitOperationDelete(name) for name in stale)],
        commit_message=message,
        revision=target.revision,
        parent_commit=head.sha,
    )
    return Sent(str(done.commit_url), done.oid, stale, changed=done.oid != head.sha)


def _additions(files: ModelFiles, target: HubName, there: set[str]) -> Iterator[CommitOperationAdd]:
    for name in files.sizes:
        yield CommitOperationAdd(name, files.directory / name)
    if CARD not in files and CARD not in there:
        yield CommitOperationAdd(CARD, model_card(target.repository, files.report).encode())


def _advice(error: Exception, target: HubName) -> str | None:
    """What is wrong with an upload, and what to do; None when it is nothing that only uploads meet."""
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{constants.ENDPOINT} shows no model {target.repository} ({token_state()}): correct the name, add --create, or set "
            "HF_TOKEN to a token of an account that may write to it"
        )
    if isinstance(error, RevisionNotFoundError):
        return f'{target.repository} has no branch "{target.revision}" ({revisions(target.repository)}): add --create, or correct it'
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"{constants.ENDPOINT} does not let you write to {target.repository} ({token_state()}): set HF_TOKEN to a token "
                "with the permission to write"
            )
        if status in (409, 412):
            return f"somebody else has changed {target.repository} meanwhile: look at what is there, and run the same command again"
    return None
