"""Hosts for each launcher, and what is measured on them, for all tests of this folder that one process runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.blocks import blocks
from tests.cluster.table import RESULTS, SCENARIOS, Measured, page
from tests.cluster.ways import NODE_TIMEOUT, Way, way, why_not
from tests.end_to_end.conftest import small_data as small_data


@pytest.fixture(scope="session")
def ways() -> Iterator[Callable[[str], Way]]:
    """Gives the hosts of a launcher, which are started when they are first asked for; skips where they cannot be."""
    started: dict[str, Way] = {}
    with contextlib.ExitStack() as stack:

        def get(launcher: str) -> Way:
            if why := why_not(launcher):
                pytest.skip(why)
            if launcher not in started:
                started[launcher] = stack.enter_context(way(launcher))
            return started[launcher]

        yield get


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Iterator[Measured]:
    """The seconds of each launcher and scenario; `--update-matrix` keeps them."""
    seconds: Measured = {}
    yield seconds
    if request.config.getoption("--update-matrix"):
        cells = [(name, what) for name in blocks() for what in SCENARIOS]
        RESULTS.write_text(page({each: seconds[each] for each in cells if each in seconds}, NODE_TIMEOUT))
