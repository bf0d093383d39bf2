"""How a request can fail: for now, for good, or because the user stopped it; each with the sentence the user reads."""

from __future__ import annotations

import os
from http import HTTPStatus

import httpx2

PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})


class Passing(Exception):
    """A failure that another try may not meet. `wait`: the seconds the server asks for, if it does."""

    def __init__(self, reason: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(Exception):
    """A failure that another try would meet again; the text is a sentence with the URL and the fix."""


class Stopped(Exception):
    """The download was told to stop; what has arrived is kept."""


def check_status(response: httpx2.Response, url: str) -> None:
    """Do nothing for 200 and 206. Raises Passing or Refused for anything else."""
    status = response.status_code
    if status in (200, 206):
        return
    answer = f"{url} answered {status}{_phrase(status)}"
    if status in PASSING_STATUS:
        raise Passing(answer, wait=_retry_after(response))
    raise Refused(f"{answer}: {_advice(status)}.")


def network_failure(error: Exception, url: str) -> Passing | Refused:
    """What an exception of the HTTP client means."""
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, httpx2.TimeoutException):
        return Passing(f"{url} did not answer in time ({type(error).__name__})")
    if isinstance(error, httpx2.ProxyError):
        return Refused(
            f"the proxy {_proxy()} did not pass on {url} ({reason}): correct HTTPS_PROXY, HTTP_PROXY or NO_PROXY."
        )
    if isinstance(error, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
        return Refused(f"{url} is no address of a file ({reason}): it must begin with http:// or https://.")
    if isinstance(error, httpx2.TooManyRedirects):
        return Refused(
            f"{url} leads to another address again and again ({reason}): the server is at fault, use another."
        )
    return Passing(f"{url} cannot be reached or broke off ({reason})")


def given_up(reason: str, tries: int) -> Refused:
    """The end of patience with a passing failure."""
    return Refused(
        f"{reason}, {tries} times in a row: run the same command again later, it continues where it stopped; "
        f"check the network, and HTTPS_PROXY (now {_proxy()}) where it needs a proxy."
    )


def _advice(status: int) -> str:
    if status in (401, 403):
        return (
            "it needs permission; for a dataset of the Hugging Face hub accept its conditions on its page and set HF_TOKEN "
            "to a token of that account"
        )
    if status == 407:
        return "the proxy asks for a name and a password: write them as HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
    if status in (404, 410):
        return (
            "the file is not there (any more); prepare_data.py --list says what there is, and files you have can be given as "
            "file:PATH"
        )
    return "the server does not give the file; see in a browser what it says"


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds, when the header says so; the form with a date is rare and not followed."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def _proxy() -> str:
    names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    proxy = next((os.environ[name] for name in names if os.environ.get(name)), "not set")
    return proxy.rpartition("@")[2]  # without a password
