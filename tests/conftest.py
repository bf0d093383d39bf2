"""Settings every test shares: one thread in the parent (forked ranks must not inherit a thread pool), no network."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("patient", settings.default, deadline=None)  # seconds tell how busy a machine is
settings.load_profile("patient")

# A shell starts what runs in the background deaf to Ctrl-C, and children inherit that; some tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` accepts what the program prints now as what it should print; `--update-matrix` keeps what was measured."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected texts of tests/golden")
    parser.addoption(
        "--update-matrix", action="store_true", help="rewrite the matrix's results and its table in the README"
    )


# Collecting makes only what stays. The garbage collector does not look at it, neither now nor in every test and process forked from here.
gc.disable()


def pytest_collection_finish() -> None:
    """Collected objects leave the garbage collector's sight; from here on it works as always."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def oracle() -> Path:
    """Folder of values computed with the original GPT-NeoX; tests that need it are skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "oracle"
    if not folder.is_dir():
        pytest.skip("the oracle folder is not here")
    return folder


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of reference facts (config keys, model zoo); tests that need it are skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("the reference folder is not here")
    return folder


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: for tests that synchronise hundreds of files, which costs a disk seconds."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)
