"""The matrix can fail: each classic mistake, planted alone, turns cells red that it touches, and none that it does not.

Every third mistake is planted in each run of the suite, all of them by `make matrix`.
"""

from __future__ import annotations

from functools import cache

import pytest

from tests.distributed.matrix.cell import Cell
from tests.distributed.matrix.mutation import MUTATIONS, Mutation
from tests.distributed.matrix.mutations import BY_NAME
from tests.distributed.matrix.ranks import Job
from tests.distributed.matrix.reference import reference
from tests.distributed.matrix.running import Verdict, run_jobs

SOME = tuple(BY_NAME)[::3]
OTHERS = tuple(name for name in BY_NAME if name not in SOME)


@cache
def cells_of(mutation: Mutation) -> tuple[Cell, Cell]:
    """(a cell that the mutation touches, one that it does not)."""
    victim = mutation.victims()[0]
    return victim, mutation.control(victim)


@cache
def verdicts(names: tuple[str, ...]) -> dict[str, tuple[Verdict, Verdict]]:
    """What becomes of the two cells of each mutation: three worlds serve them all."""
    pairs = {name: cells_of(BY_NAME[name]) for name in names}
    jobs = [Job(cell, reference(cell), BY_NAME[name].plant) for name, pair in pairs.items() for cell in pair]
    found = iter(run_jobs(jobs, timeout=1000))
    return {name: (next(found), next(found)) for name in names}


def check(name: str, victim: Verdict, control: Verdict) -> None:
    """Red where the mistake is, and as expected of it; green where it is not."""
    mutation, (touched, untouched) = BY_NAME[name], cells_of(BY_NAME[name])
    assert victim.red >= mutation.shows, touched.name
    assert control.red <= mutation.hides, untouched.name


def test_there_are_enough_mistakes() -> None:
    assert len(BY_NAME) == len(MUTATIONS) >= 15


@pytest.mark.parametrize("name", SOME)
def test_a_mistake_is_seen_where_it_is_and_nowhere_else(name: str) -> None:
    check(name, *verdicts(SOME)[name])


@pytest.mark.matrix
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", OTHERS)
def test_other_mistakes_are_seen_as_well(name: str) -> None:
    check(name, *verdicts(OTHERS)[name])
