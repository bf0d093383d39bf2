"""Small answers in JSON, such as lists of files: the same retries and sentences as for files."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx2

from megatron.data.corpora.download.errors import Passing, Refused, check_status, given_up, network_failure
from megatron.data.corpora.download.hub import hub_headers, hub_url
from megatron.data.corpora.download.parallel import DownloadSettings
from megatron.errors import DataError


def get_json(url: str, settings: DownloadSettings) -> tuple[Any, str | None]:
    """The parsed answer and the address of its next page, if there is one. Raises DataError when it cannot be had."""
    url, patience = hub_url(url), settings.patience
    try:
        with settings.client() as client:
            for failures in range(1, patience.tries + 1):
                try:
                    return _get(client, url)
                except Passing as failure:
                    if failures == patience.tries:
                        raise given_up(str(failure), failures) from None
                    time.sleep(patience.wait(failures, failure.wait))
    except Refused as refusal:
        raise DataError(str(refusal)) from None
    raise AssertionError("the loop returns or raises")


def _get(client: httpx2.Client, url: str) -> tuple[Any, str | None]:
    try:
        response = client.get(url, headers=hub_headers(url))
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise network_failure(error, url) from None
    check_status(response, url)
    try:
        answer = response.json()
    except ValueError as error:
        raise Refused(
            f"{url} answered with something else than JSON ({error}): the server or a proxy is at fault."
        ) from None
    following = re.search(r'<([^>]+)>;\s*rel="next"', response.headers.get("Link", ""))
    return answer, following[1] if following else None
