"""An S3 store for tests: moto's server in a process of its own, found by s3fs through the environment as a real one is."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class ObjectStore:
    """A running store with one bucket. environment: what a process needs to find it."""

    environment: dict[str, str]
    bucket: str = "checkpoints"

    def directory(self) -> str:
        """The URL of a directory that nobody has used."""
        return f"s3://{self.bucket}/{uuid.uuid4().hex[:8]}/run"

    def file_system(self) -> Any:
        """A client that shares nothing with others."""
        import s3fs

        return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A store that lives as long as the block, in the environment of this process; the test is skipped without moto."""
    pytest.importorskip("moto", reason="moto is not installed (requirements/requirements-dev.txt)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    patch = pytest.MonkeyPatch()
    try:
        for name, value in environment.items():
            patch.setenv(name, value)
        _wait_for(port)
        store = ObjectStore(environment)
        store.file_system().mkdir(store.bucket)
        yield store
    finally:
        patch.undo()
        server.kill()
        server.wait()


def _wait_for(port: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the store does not start"
            time.sleep(0.05)
