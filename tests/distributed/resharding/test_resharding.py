"""A run goes on in any layout as it would have in its own, and no layout changes what a checkpoint says.

A selection of pairs in each run of the suite, all of them by `make matrix`; likewise of the mistakes that must turn pairs red.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from megatron.engine.partition import partition_layers
from megatron.model.spec import LayerSpec
from megatron.neox_arguments import NeoXArgs
from tests.distributed.matrix.reference import model_specs
from tests.distributed.matrix.running import TOLERANCES
from tests.distributed.resharding.cases import LAYOUTS, TRAININGS, Layout, Pair, all_pairs, quick_pairs, settings
from tests.distributed.resharding.mistakes import MISTAKES
from tests.distributed.resharding.report import (
    RESULTS,
    page,
    summary_of,
    without_deviations,
    write,
    written_summary,
)
from tests.distributed.resharding.running import KINDS, Task, Verdict, run_tasks

QUICK = {str(pair): pair for pair in quick_pairs()}
WHOLE = {str(pair): pair for pair in all_pairs()}
SOME = tuple(MISTAKES)[::3]
ROOM = 1 << 30
Verdicts = dict[tuple[str, str], Verdict]
"""By the names of a pair and of the mistake that was planted, or ""."""


def verdicts_on(pairs: Iterable[Pair], mistakes: Iterable[str]) -> Verdicts:
    tasks = [Task(pair) for pair in pairs]
    for mistake in (MISTAKES[name] for name in mistakes):
        touched = (mistake.victim(), mistake.control())
        tasks += [Task(pair, mistake.name, mistake.plant) for pair in touched if pair is not None]
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        found = run_tasks(tasks, Path(folder), timeout=3000)
    return {(str(task.pair), task.mistake): verdict for task, verdict in zip(tasks, found, strict=True)}


def _memory() -> str | None:
    """A directory in memory with room enough, if there is one: hundreds of checkpoints are synchronised, which costs a disk minutes."""
    directory = "/dev/shm"
    has_room = os.access(directory, os.W_OK) and shutil.disk_usage(directory).free > ROOM
    return directory if has_room else None


@pytest.fixture(scope="module")
def whole() -> Verdicts:
    return verdicts_on(WHOLE.values(), MISTAKES)


@pytest.fixture(scope="module")
def quick(request: pytest.FixtureRequest) -> Verdicts:
    if request.config.getoption("--update-matrix"):
        return request.getfixturevalue("whole")
    return verdicts_on(QUICK.values(), SOME)


def check_mistake(name: str, found: Verdicts) -> None:
    """Red where the mistake is, and as expected of it; green where it is not."""
    mistake = MISTAKES[name]
    assert found[str(mistake.victim()), name].red >= mistake.shows
    assert not found[str(mistake.victim()), ""].red
    control = mistake.control()
    assert control is None or not found[str(control), name].red


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", QUICK)
def test_a_run_goes_on_in_another_layout_as_in_its_own(name: str, quick: Verdicts) -> None:
    verdict = quick[name, ""]
    assert verdict.deviations.keys() == KINDS
    assert not verdict.red, verdict.deviations


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SOME)
def test_a_mistake_is_seen_where_it_is_and_nowhere_else(name: str, quick: Verdicts) -> None:
    check_mistake(name, quick)


@pytest.mark.matrix
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", WHOLE)
def test_every_run_goes_on_in_another_layout_as_in_its_own(name: str, whole: Verdicts) -> None:
    verdict = whole[name, ""]
    assert not verdict.red, verdict.deviations


@pytest.mark.matrix
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [name for name in MISTAKES if name not in SOME])
def test_other_mistakes_are_seen_as_well(name: str, whole: Verdicts) -> None:
    check_mistake(name, whole)


@pytest.mark.matrix
def test_results_are_written_when_asked_for(request: pytest.FixtureRequest, whole: Verdicts) -> None:
    """`--update-matrix`, as `make matrix` says it."""
    if request.config.getoption("--update-matrix"):
        write({pair: whole[name, ""] for name, pair in WHOLE.items()})


def test_the_readme_and_the_page_speak_of_these_pairs() -> None:
    """After a change of the pairs, `make matrix` writes both anew."""
    expected = page({pair: Verdict(pair.training.precision, dict.fromkeys(KINDS, 0.0)) for pair in WHOLE.values()})
    assert without_deviations(RESULTS.read_text(encoding="utf-8")) == without_deviations(expected)
    precisions = dict.fromkeys(training.precision for training in TRAININGS.values())
    expected = summary_of(len(WHOLE), dict.fromkeys(precisions, 0.0))
    assert without_deviations(written_summary()) == without_deviations(expected)


def test_there_are_enough_pairs() -> None:
    exact = [pair for pair in QUICK.values() if pair.training.precision in ("fp32", "fp64")]
    assert len(exact) >= 20
    assert all(max(TOLERANCES[pair.training.precision]) <= 1e-5 for pair in exact)
    assert len(QUICK) == len(set(QUICK.values()))
    assert len(MISTAKES) >= 10


def test_every_size_and_stage_is_changed_from_and_to() -> None:
    """In each run of the suite one of them, among all pairs each layout both, and each size with another on either side."""
    quick = [layout for pair in QUICK.values() for layout in (pair.first, pair.second)]
    for layouts in (quick, [pair.first for pair in WHOLE.values()], [pair.second for pair in WHOLE.values()]):
        for size in ("data", "tensor", "pipe"):
            assert {max(getattr(layout.grid, size), 1) for layout in layouts} == {1, 2, 4}
        assert {layout.grid.context for layout in layouts} == {1, 2}
        assert {layout.zero for layout in layouts} == {0, 1, 2, 3}
        assert {layout.on_host for layout in layouts} == {False, True}
    for side in ("first", "second"):
        assert {getattr(pair, side) for pair in WHOLE.values()} == set(LAYOUTS.values())


def test_stages_have_unequal_shares_of_the_blocks() -> None:
    training = TRAININGS["fp64"]
    for layout in (LAYOUTS["pipe x tensor"], LAYOUTS["pipe"], LAYOUTS["pipe 4"]):
        specs = model_specs(NeoXArgs.from_dict(settings(training, layout)))
        assert len(_blocks_of_stages(specs, layout)) > 1


def _blocks_of_stages(specs: Sequence[LayerSpec], layout: Layout) -> set[int]:
    """The numbers of blocks that stages have."""
    bounds = partition_layers(specs, layout.grid.pipe, method=layout.partition, count_parameters=lambda spec: 0)
    stages = [specs[begin:end] for begin, end in pairwise(bounds)]
    return {sum("transformer" in spec.name.lower() for spec in stage) for stage in stages}


def test_pairs_change_padding_batches_and_everything_else() -> None:
    for pair in WHOLE.values():
        assert pair.first != pair.second
    for name in ("padded_vocabulary", "accumulation", "zero", "on_host", "grid", "partition", "recompute"):
        assert any(getattr(pair.first, name) != getattr(pair.second, name) for pair in QUICK.values()), name
