"""Every launcher on two hosts: when a rank is killed or a host vanishes it ends everywhere within seconds, and says why. The ranks only wait."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from megatron.components import LAUNCHERS
from tests.cluster.blocks import blocks
from tests.cluster.damage import Damage, end, kill_a_rank, lose_a_node
from tests.cluster.table import KILL, LOSE, Measured, Seconds
from tests.cluster.ways import NODE_TIMEOUT, Way, why_not

pytestmark = pytest.mark.cluster

OWN = [name for name in blocks() if name != "torchrun-alone"]
"""Launchers whose failures are ours to end; torchrun's own agents have their ways."""
DAMAGES: dict[str, Damage] = {KILL: kill_a_rank, LOSE: lose_a_node}
Ended = tuple[int, Seconds, list[str]]
"""Exit status of a job, how long it took to end, and the lines that say why."""


def damaged(way: Way, directory: Path, damage: Damage) -> Ended:
    """What becomes of a job."""
    with way.wait(directory, f"node_timeout={NODE_TIMEOUT:g}") as job:
        job.wait_for("started.0", "started.1")
        status, seconds = end(job, damage)
        return status, seconds, job.errors


def try_all(way: Way, directory: Path, results: dict[str, Future[Ended]]) -> None:
    """Do every damage to a job of its own, one after the other, and keep what becomes of them, or the error of the test."""
    for what, damage in DAMAGES.items():
        try:
            results[what].set_result(damaged(way, directory / what.replace(" ", "_"), damage))
        except BaseException as error:
            results[what].set_exception(error)


@pytest.fixture(scope="module")
def ended(
    ways: Callable[[str], Way], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Future[Ended]]]]:
    """What becomes of jobs, by launcher and damage. Launchers are tried beside each other, on hosts of their own, as they mostly wait."""
    directory = tmp_path_factory.mktemp("ended")
    results: dict[str, dict[str, Future[Ended]]] = {name: {what: Future() for what in DAMAGES} for name in OWN}
    with ThreadPoolExecutor(max_workers=3) as executor:
        for name in OWN:
            if why_not(name) is None:
                executor.submit(try_all, ways(name), directory / name, results[name])
        yield results


def result(launcher: str, damage: str, ended: dict[str, dict[str, Future[Ended]]]) -> Ended:
    """What became of a job; skips a launcher that cannot be tried here."""
    if why := why_not(launcher):
        pytest.skip(why)
    return ended[launcher][damage].result()


@pytest.mark.parametrize("launcher", OWN)
def test_a_killed_rank_ends_all_at_once_and_is_named(
    launcher: str, ended: dict[str, dict[str, Future[Ended]]], measured: Measured
) -> None:
    status, seconds, errors = result(launcher, KILL, ended)
    measured[launcher, KILL] = seconds
    assert status == 128 + signal.SIGKILL
    assert len(errors) == 1, errors
    assert "rank 1" in errors[0]
    assert "h2" in errors[0]
    assert seconds.gone < 10


@pytest.mark.parametrize("launcher", OWN)
def test_a_lost_node_ends_all_soon_and_is_named(
    launcher: str, ended: dict[str, dict[str, Future[Ended]]], measured: Measured
) -> None:
    status, seconds, errors = result(launcher, LOSE, ended)
    measured[launcher, LOSE] = seconds
    assert status not in (0, 75)
    assert len(errors) == 1, errors
    assert "rank 1" in errors[0]
    assert "h2" in errors[0]
    assert seconds.gone < NODE_TIMEOUT + 6


def test_the_readme_has_a_block_for_every_launcher() -> None:
    assert set(blocks()) >= set(LAUNCHERS) - {"local"}
