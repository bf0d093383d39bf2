"""When machines are lost: spares first, then fewer machines where that is wanted, else the same again."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.errors import LaunchError
from megatron.launcher.base import Host
from megatron.launcher.next_attempt import FirstAttempt, next_attempt
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues
from tests.unit.neox_arguments.minimal import MINIMAL


def job(names: str, spares: str = "", **keys: Any) -> FirstAttempt:
    """A job on these machines of two slots each; a capital letter stands for one with a single slot."""
    hosts, waiting = ([Host(name, (0,) if name.isupper() else (0, 1)) for name in each] for each in (names, spares))
    values = ConfigValues.from_dict({**MINIMAL, "max_restarts": 9, "save": "checkpoints", **keys})
    args = NeoXArgs.from_values(values, world_size=sum(len(host.slots) for host in hosts))
    return FirstAttempt(values, args, tuple(hosts), tuple(waiting))


def names(first: FirstAttempt, lost: str) -> tuple[str, tuple[str, ...]]:
    """The machines that go on, and what is said about it."""
    attempt = next_attempt(first, list(lost))
    assert attempt.args.global_num_gpus == sum(len(host.slots) for host in attempt.hosts)
    assert attempt.args.train_batch_size == first.args.train_batch_size
    return "".join(host.name for host in attempt.hosts), attempt.notes


def test_spares_come_first_and_the_config_stays() -> None:
    first = job("abc", "de", elastic=True)
    assert names(first, "b") == ("adc", ("d takes the place of b",))
    assert names(first, "bd") == ("aec", ("e takes the place of b",))
    assert next_attempt(first, ["b"]).args is first.args


def test_then_an_elastic_run_goes_on_with_fewer_again_and_again() -> None:
    first = job("abcd", "e", elastic=True)
    shrunk = (
        "goes on with {} of 4 machines: data-parallel 8 -> {}, gradient accumulation 1 -> {}; the global batch stays 16"
    )
    assert names(first, "bd") == ("ae", ("e takes the place of b", shrunk.format(2, 4, 2) + "; 2 slots left over"))
    assert names(first, "abe") == ("cd", (shrunk.format(2, 4, 2),))
    assert names(first, "abde") == ("c", (shrunk.format(1, 2, 4),))


def test_a_spare_that_is_too_small_for_one_place_serves_an_elastic_run() -> None:
    hosts, notes = names(job("ab", "C", elastic=True, train_batch_size=24), "b")
    assert hosts == "aC"
    assert notes[0] == "C cannot take the place of b: it has 1 slot, b has 2"
    assert notes[1].startswith("goes on with 2 of 2 machines: data-parallel 4 -> 3")


def test_where_all_are_lost_at_once_the_same_are_tried_again() -> None:
    assert names(job("ab", elastic=True), "ab") == (
        "ab",
        ("nothing is left to take the place of a and b: the same again",),
    )


def test_without_any_the_same_are_tried_again() -> None:
    hosts, notes = names(job("abc", "d"), "bc")
    assert hosts == "adc"
    assert notes[1:] == ("nothing is left to take the place of c: the same again (elastic: true would go on without)",)


def test_an_elastic_run_ends_where_no_copy_of_the_model_fits() -> None:
    with pytest.raises(
        LaunchError, match=r"^1 of 2 machines with 2 slots left: one copy of the model needs 4 \(pipeline 4\)$"
    ):
        next_attempt(job("ab", elastic=True, pipe_parallel_size=4), ["a"])
