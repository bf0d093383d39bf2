"""How a request to the Hugging Face Hub can fail: what another try may not meet again, and the sentence that a user reads."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from megatron.conversion.hub.names import PREFIX, HubName
from megatron.errors import CheckpointError, NeoXError
from megatron.log import get_logger

T = TypeVar("T")

logger = get_logger(__name__)

PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries of a request."""


def patiently(action: Callable[[], T]) -> T:
    """What `action` gives, tried again when the Hub was busy or the connection broke; not when there is no connection at all."""
    for wait in WAITS:
        try:
            return action()
        except Exception as error:
            cause = _cause(error)
            if isinstance(cause, (*NOT_CONNECTED, OfflineModeIsEnabled)) or not is_unreachable(cause):
                raise
            logger.warning("the Hugging Face Hub failed (%s); trying again in %g s", _reason(cause), wait)
            time.sleep(wait)
    return action()


def is_unreachable(error: Exception) -> bool:
    """Whether the Hub did not answer, or not to the question, so that the local cache is all there is."""
    error = _cause(error)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in PASSING_STATUS
    return isinstance(error, (httpx2.TransportError, OfflineModeIsEnabled))


@contextlib.contextmanager
def one_sentence(name: HubName, advise: Callable[[Exception, HubName], str | None]) -> Iterator[None]:
    """Around requests about a model: what fails becomes a CheckpointError with the sentence of `advise`, or of its own where that has none."""
    try:
        yield
    except NeoXError:
        raise
    except Exception as error:
        cause = _cause(error)
        said = advise(cause, name) or _general(cause)
        if said is None:
            raise
        raise CheckpointError(said) from error


def download_advice(error: Exception, name: HubName) -> str | None:
    """What is wrong with downloading a model, and what to do; None when it is nothing that only downloads meet."""
    elsewhere = f"`hf download {name.repository} --local-dir DIR` where there is a network, and give {PREFIX}DIR"
    if isinstance(error, GatedRepoError):
        return (
            f"{name.repository} asks for permission: accept its conditions at {page_of(name)} and set HF_TOKEN to a token of "
            f"that account ({token_state()})"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the Hugging Face Hub shows no model {name.repository} ({token_state()}), and there is no directory "
            f"{name.repository} here: correct the name or the path; for a private model set HF_TOKEN to a token of an account "
            "that may read it"
        )
    if isinstance(error, RevisionNotFoundError):
        return f'{name.repository} has no revision "{name.revision}": {revisions(name.repository)}, or a commit'
    cached = f"{name} is not, or not wholly, in the cache {constants.HF_HUB_CACHE}"
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return (
            f"{cached}, and there is no directory {name.repository} here; HF_HUB_OFFLINE forbids to ask the Hugging Face Hub: "
            f"unset it, or run {elsewhere}"
        )
    if is_unreachable(error):
        return f"{cached}, and {_no_answer(error)}; or run {elsewhere}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{constants.HF_HUB_CACHE} is full: {name} does not fit; free some room, or set HF_HOME to a place with more"
    return None


def token_state() -> str:
    """Whether requests carry a token."""
    return "with the token that is set" if get_token() else "HF_TOKEN is not set"


def page_of(name: HubName) -> str:
    """The address of a model for people."""
    return f"{constants.ENDPOINT}/{name.repository}"


def _general(error: Exception) -> str | None:
    """Failures that downloads and uploads have in common."""
    if is_unreachable(error):
        return _no_answer(error)
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code == 401:
            return f"{constants.ENDPOINT} does not accept the token: set HF_TOKEN to one that is valid"
        return f"{constants.ENDPOINT} refused: {error.server_message or _reason(error)}"
    if isinstance(error, (OSError, RuntimeError)) and getattr(error, "filename", None) is None:
        # What the library says that moves large files to and from the Hub's own store; it tries again by itself.
        return (
            f"moving large files failed ({_reason(error)}): run the same command again, which goes on where this ended; "
            "HF_HUB_DISABLE_XET=1 takes the older way"
        )
    return None


def _no_answer(error: Exception) -> str:
    fix = "check the network, HTTPS_PROXY and HF_ENDPOINT"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to ask the Hugging Face Hub: unset it"
    if isinstance(error, HfHubHTTPError):
        fix = "try again later"
    return f"{constants.ENDPOINT} gives no answer ({_reason(error)}): {fix}"


def revisions(repository: str) -> str:
    """The branches and tags there are, or where to see them."""
    try:
        refs = HfApi().list_repo_refs(repository)
    except (HfHubHTTPError, httpx2.HTTPError):
        return f"see {constants.ENDPOINT}/{repository}/branches"
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    return f"there is {', '.join(names[:12])}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _cause(error: Exception) -> Exception:
    """What the client wraps into another error of its own when it finds nothing in the cache, or when a thread of an upload fails."""
    cause = error.__cause__
    if isinstance(cause, Exception) and isinstance(error, (LocalEntryNotFoundError, RuntimeError)):
        return _cause(cause)
    return error


def _reason(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"{error.response.status_code} {error.response.reason_phrase}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
