"""One file: request what is missing of it until it is whole, then verify and rename it."""

from __future__ import annotations

import os
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2

from megatron.atomic import sync_directory
from megatron.data.corpora.download.errors import Passing, Refused, Stopped, check_status, given_up, network_failure
from megatron.data.corpora.download.hub import hub_headers
from megatron.data.corpora.download.record import (
    Record,
    RemoteFile,
    digest_of,
    partial_path,
    read_record,
    record_of,
    record_path,
    write_record,
)

BUFFER = 1 << 16  # what a killed process loses of a file, at most


@dataclass(frozen=True)
class Patience:
    """How often to try in vain before giving up, and the seconds to wait after the first failure, doubled after each."""

    tries: int = 5
    first_wait: float = 1.0
    longest_wait: float = 60.0

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds after this many failures in a row; what the server asks for counts, within the longest wait."""
        backed_off = self.first_wait * 2.0 ** (failures - 1) * random.uniform(0.8, 1.2)
        return min(max(backed_off, asked or 0.0), self.longest_wait)


class FileDownload:
    """The way of one file into `path`. `on_bytes` is told of every change of what is here, `on_wait` of every wait."""

    def __init__(
        self,
        client: httpx2.Client,
        file: RemoteFile,
        path: Path,
        *,
        patience: Patience,
        stop: threading.Event,
        on_bytes: Callable[[int], None],
        on_wait: Callable[[str], None],
    ) -> None:
        self._client = client
        self._file = file
        self._path = path
        self._partial = partial_path(path)
        self._patience = patience
        self._stop = stop
        self._on_bytes = on_bytes
        self._on_wait = on_wait
        self._mismatches = 0

    def run(self) -> None:
        """Bring the file here from the first address that has it. Raises Refused with every reason, or Stopped."""
        reasons = []
        for url in self._file.urls:
            try:
                self._from(url)
            except Refused as refusal:
                reasons.append(str(refusal))
            else:
                return
        raise Refused("\n".join(reasons))

    def _from(self, url: str) -> None:
        """Try again after passing failures, as long as more of the file arrives or patience lasts."""
        failures, furthest = 0, self._here()
        while True:
            try:
                self._finish(self._request(url))
            except Passing as failure:
                failures = 0 if self._here() > furthest else failures + 1
                furthest = max(furthest, self._here())
                if failures >= self._patience.tries:
                    raise given_up(str(failure), failures) from None
                self._pause(failure, max(failures, 1))
            else:
                return

    def _pause(self, failure: Passing, failures: int) -> None:
        seconds = self._patience.wait(failures, failure.wait)
        self._on_wait(f"{failure}; trying again in {seconds:.0f} s")
        if self._stop.wait(seconds):
            raise Stopped

    def _request(self, url: str) -> Record:
        """Request the rest of the file and append it. Raises Passing when it does not arrive whole."""
        known, offset = read_record(self._path), self._here()
        if known is None or known.version is None:
            self._discard()
            known, offset = None, 0
        if known is not None and offset == known.size:
            return known
        headers = {"Accept-Encoding": "identity", **hub_headers(url)}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if known is not None and known.validator and known.url == url:
                headers["If-Range"] = known.validator
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                return self._receive(response, url, known, offset)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise network_failure(error, url) from None

    def _receive(self, response: httpx2.Response, url: str, known: Record | None, offset: int) -> Record:
        if response.status_code == 416 and offset:
            self._discard()
            raise Passing(f"{url} has no bytes after the first {offset:,}, it has changed")
        check_status(response, url)
        begin, size = _range_of(response)
        record = record_of(response, self._file, url, size=size)
        if response.status_code == 206 and (begin != offset or (known is not None and not known.continues(record))):
            self._discard()
            raise Passing(f"{url} has changed since it was begun")
        if response.status_code == 200 and offset:  # the server knows no ranges, or the file has changed: begin again
            self._discard()
        self._check_answer(response, record, url)
        write_record(self._path, record)
        self._append(response)
        if size is not None and self._here() < size:
            raise Passing(f"{url} ended after {self._here():,} of {size:,} bytes")
        return replace(record, size=self._here())

    def _check_answer(self, response: httpx2.Response, record: Record, url: str) -> None:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity" and not self._path.name.endswith(".gz"):
            raise Refused(f'{url} comes as "{encoding}", which was not asked for: the server or a proxy is at fault.')
        published = self._file.size
        if published is not None and record.size is not None and record.size != published:
            raise Refused(
                f"{url} has {record.size:,} bytes instead of the {published:,} published: it is another file; "
                "use another mirror, or report that the corpus has changed."
            )

    def _append(self, response: httpx2.Response) -> None:
        with open(self._partial, "ab", buffering=BUFFER) as file:
            for block in response.iter_raw():
                file.write(block)
                self._on_bytes(len(block))
                if self._stop.is_set():
                    raise Stopped

    def _finish(self, record: Record) -> None:
        """Verify what has arrived and give it its name. Raises Passing when it is not what was published."""
        if not self._partial.exists():
            self._partial.touch()  # an empty file
        digest = digest_of(self._partial).hexdigest()  # of what is on the disk, whichever requests brought it
        version = record.version or ""
        wanted = self._file.sha256 or (version.removeprefix("sha256:") if version.startswith("sha256:") else digest)
        if digest != wanted:
            self._discard()
            self._mismatches += 1
            reason = f"{record.url} arrived with the SHA-256 {digest} instead of the {wanted} published"
            if self._mismatches == 1:
                raise Passing(reason)
            raise Refused(f"{reason}, twice: it is damaged there or another file; use another mirror.")
        with open(self._partial, "rb+") as file:
            os.fsync(file.fileno())
        write_record(self._path, replace(record, sha256=digest))
        os.replace(self._partial, self._path)
        sync_directory(self._path.parent)

    def _here(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0

    def _discard(self) -> None:
        """Begin again: what has arrived is of another version, or damaged."""
        self._on_bytes(-self._here())
        self._partial.unlink(missing_ok=True)
        record_path(self._path).unlink(missing_ok=True)


def _range_of(response: httpx2.Response) -> tuple[int, int | None]:
    """(first byte of the body, size of the whole file if told)."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None:
            return -1, None
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None
