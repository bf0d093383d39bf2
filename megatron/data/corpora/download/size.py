"""How much there is to download, and whether the disk has room for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx2

from megatron.data.corpora.download.hub import hub_headers
from megatron.data.corpora.download.progress import readable_size
from megatron.data.corpora.download.record import RemoteFile
from megatron.errors import DataError

SAMPLED = 16  # files asked for their size; the others are taken to be of the same size on average


def total_size(client: httpx2.Client, files: list[RemoteFile]) -> int | None:
    """Bytes of all files, from what is published or the servers tell of a sample; None when they do not."""
    unknown = [file for file in files if file.size is None]
    published = sum(file.size for file in files if file.size is not None)
    if not unknown:
        return published
    sample = unknown[:: max(1, -(-len(unknown) // SAMPLED))]
    sizes = [size for file in sample if (size := _size_told(client, file)) is not None]
    if not sizes:
        return None
    return published + sum(sizes) * len(unknown) // len(sizes)


def _size_told(client: httpx2.Client, file: RemoteFile) -> int | None:
    """What HEAD tells; errors are left for the request of the file itself to tell."""
    headers = {"Accept-Encoding": "identity", **hub_headers(file.urls[0])}
    try:
        response = client.head(file.urls[0], headers=headers)
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return None
    lengths = [
        step.headers.get("X-Linked-Size", "") for step in response.history
    ]  # the hub's, where the store answers no HEAD
    lengths += [response.headers.get("Content-Length", "")] if response.status_code == 200 else []
    return next((int(length) for length in lengths if length.isdigit()), None)


def check_disk(directory: Path, *, needed: int) -> None:
    """Raise DataError when `needed` bytes are more than are free."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"{readable_size(needed)} are to be downloaded into {directory}, where {readable_size(free)} are free: make room, "
            "give another directory with --data-dir, or take fewer files with --files N."
        )
