"""What an attempt comes to, from what the agents have told: exit status, text, and whether it is worth another try."""

from __future__ import annotations

import signal

import pytest

from megatron.errors import LaunchError
from megatron.launcher.base import Host
from megatron.launcher.failure import ErrorRecord, Failure
from megatron.launcher.head.nodes import Node, check_devices, node_of, nodes_of
from megatron.launcher.head.outcome import Outcome, Stop, judge, stopped_before

NOW = 1_000_000.0


def stop(number: int | None = None, *, saves: bool = False, ours: bool = False) -> Stop:
    return Stop(number, 20.0, saves, ours=ours)


def ended(node: Node, *failures: Failure, **said: object) -> None:
    good = {
        "succeeded": not failures,
        "stopped": False,
        "overdue": False,
        "abandoned": False,
        "report": None,
        "now": NOW,
    }
    node.ended = {**good, "failures": [failure.to_message() for failure in failures], **said}


def two(first: tuple[Failure, ...] = (), second: tuple[Failure, ...] = (), **said: object) -> list[Node]:
    nodes = nodes_of([Host("a", (0, 1)), Host("b", (0, 1))])
    ended(nodes[0], *first, **said)
    ended(nodes[1], *second)
    return nodes


def told(rank: int, text: str, at: float, *, may_pass: bool = False) -> Failure:
    return Failure(rank, 1, ErrorRecord(text, expected=True, time=at, may_pass=may_pass))


def test_all_well_is_0_and_some_saved_before_the_end_is_75():
    assert judge(two(), stop(), trouble=None, now=NOW) == Outcome(0)
    assert judge(two(stopped=True), stop(signal.SIGTERM), trouble=None, now=NOW) == Outcome(75)


def test_the_earliest_error_is_the_cause_by_one_clock():
    """The clock of b is an hour ahead: its rank failed 5 s after that of a, although it says 3605 s."""
    nodes = two((told(0, "first", NOW - 10),), (told(2, "second", NOW + 3595),))
    nodes[1].ended["now"] = NOW + 3600
    assert judge(nodes, stop(), trouble=None, now=NOW).text == "error (rank 0 on a): first\n"
    nodes = two((told(0, "first", NOW - 4),), (told(2, "second", NOW + 3595),))
    nodes[1].ended["now"] = NOW + 3600
    assert judge(nodes, stop(), trouble=None, now=NOW).text == "error (rank 2 on b): second\n"


def test_a_killed_rank_outweighs_the_errors_it_causes_elsewhere():
    nodes = two((told(0, "connection closed", NOW - 9, may_pass=True),), (Failure(3, -9),))
    outcome = judge(nodes, stop(), trouble=None, now=NOW)
    assert outcome.text.startswith("error: rank 3 on b was killed by signal 9 (SIGKILL)")
    assert (outcome.status, outcome.may_pass) == (137, True)


@pytest.mark.parametrize("may_pass", [True, False])
def test_whether_a_restart_is_worth_it_is_what_the_cause_says(may_pass):
    nodes = two((told(0, "odd", NOW, may_pass=may_pass),))
    assert judge(nodes, stop(), trouble=None, now=NOW).may_pass is may_pass
    assert not judge(nodes, stop(signal.SIGTERM), trouble=None, now=NOW).may_pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("exit_code", [lambda number: -number, lambda number: 128 + number])
def test_a_rank_that_was_asked_to_stop_is_no_failure(number, exit_code):
    nodes = two((Failure(0, exit_code(number)),))
    outcome = judge(nodes, stop(), trouble=None, now=NOW)
    assert outcome == Outcome(128 + number, f"stopped by {number.name}; nothing was saved\n")
    saves = judge(nodes, stop(saves=True), trouble=None, now=NOW)
    assert saves == Outcome(75, f"stopped by {number.name} before training had begun\n")
    assert stopped_before(stop(number, saves=True)) == saves


def test_a_lost_machine_is_the_cause_the_one_that_was_silent_first():
    nodes = two((Failure(1, -9),))
    nodes[1].gone, nodes[1].gone_since = "b is gone", 5.0
    outcome = judge(nodes, stop(), trouble=None, now=NOW)
    assert outcome == Outcome(1, "error: b is gone\n", may_pass=True, lost=(Host("b", (0, 1)),))
    nodes[0].gone, nodes[0].gone_since = "a is gone", 7.0
    assert judge(nodes, stop(), trouble=None, now=NOW).text == "error: b is gone\n"


def test_a_machine_lost_while_its_launcher_ends_in_distress_is_worth_another_try_but_not_after_a_stop_of_ours():
    nodes = two()
    nodes[1].ended, nodes[1].gone = None, "b is gone"
    assert judge(nodes, stop(signal.SIGTERM), trouble=None, now=NOW).may_pass
    assert not judge(nodes, stop(signal.SIGTERM, ours=True), trouble=None, now=NOW).may_pass


def test_ranks_that_had_to_be_killed_and_those_given_up():
    overdue = two((Failure(0, -9),), overdue=True)
    assert judge(overdue, stop(signal.SIGUSR1), trouble=None, now=NOW) == Outcome(
        137, "error: the ranks did not exit within 20 s of SIGUSR1 and were killed\n"
    )
    abandoned = two((Failure(0, -9),), abandoned=True)
    outcome = judge(abandoned, stop(signal.SIGINT), trouble=None, now=NOW)
    assert (outcome.status, outcome.text[:25]) == (130, "killed by a second SIGINT")


def test_what_an_agent_could_not_do_and_what_the_head_found_are_told():
    nodes = two()
    nodes[0].ended = {"error": "no such directory"}
    assert judge(nodes, stop(), trouble=None, now=NOW) == Outcome(1, "error: no such directory\n")
    assert judge(nodes, stop(), trouble="srun was killed", now=NOW) == Outcome(1, "error: srun was killed\n")


def test_a_report_is_passed_on():
    assert judge(two(report="text"), stop(), trouble=None, now=NOW).report == "text"


def test_agents_are_known_by_number_by_name_and_by_the_first_part_of_it():
    nodes = nodes_of([Host("a.x", (0,)), Host("b", (0, 1)), Host("b.y", (0,))])
    assert [node.ranks for node in nodes] == ["rank 0", "ranks 1 to 2", "rank 3"]
    assert node_of(nodes, {"number": 2}) is nodes[2]
    assert node_of(nodes, {"number": 3}) is None
    assert node_of(nodes, {"node": "b"}) is nodes[1]
    assert node_of(nodes, {"node": "a"}) is nodes[0]
    assert node_of(nodes, {"node": "b.z"}) is None, "two hosts are called b"
    assert node_of(nodes, {"node": None}) is None


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ((0, 0), None),
        ((2, 2), None),
        ((2, 1), r"b \(ranks 2 to 3\) shows 1 accelerator, but the job wants 2 slots there"),
        ((0, 2), r"a \(ranks 0 to 1\) shows no accelerator, while b does"),
    ],
)
def test_accelerators_are_as_many_as_slots_or_none_anywhere(devices, message):
    nodes = nodes_of([Host("a", (0, 1)), Host("b", (0, 1))])
    for node, count in zip(nodes, devices, strict=True):
        node.hello = {"devices": count}
    if message is None:
        check_devices(nodes)
    else:
        with pytest.raises(LaunchError, match=message):
            check_devices(nodes)


def test_a_slot_is_a_device_of_that_number():
    nodes = nodes_of([Host("a", (3,))])
    nodes[0].hello = {"devices": 2}
    with pytest.raises(LaunchError, match="shows 2 accelerators, but the job wants 4 slots there"):
        check_devices(nodes)
