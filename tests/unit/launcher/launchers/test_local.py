"""The local launcher and the command line of the agent."""

from __future__ import annotations

import sys

import pytest

from megatron.components import LAUNCHERS
from megatron.errors import NeoXError
from megatron.launcher.agent.options import TOKEN_VARIABLE, AgentOptions, agent_argv, parse_agent_options
from megatron.launcher.base import Command, HeadPlace, Host, Job
from megatron.neox_arguments.keys.runner import RunnerArgs

LAUNCHER = LAUNCHERS.load("local")(RunnerArgs.model_construct())


def job(**changes) -> Job:
    values = {
        "script": __file__,
        "arguments": ("--neox-args", "abc="),
        "hosts": (Host("localhost", (0, 1)),),
        "head": HeadPlace(("127.0.0.1",), 4711, "secret"),
        **changes,
    }
    return Job(**values)


def test_the_command_is_one_agent_that_knows_where_the_head_is():
    (command,) = LAUNCHER.commands(job(node_timeout=7.0))
    assert command.argv[:3] == (sys.executable, "-m", "megatron.launcher.agent")
    options = parse_agent_options(command.argv[3:])
    assert options == AgentOptions(("127.0.0.1",), 4711, node="localhost", node_timeout=float("inf")), (
        "no network between"
    )
    assert command.environment[TOKEN_VARIABLE] == "secret"
    assert "secret" not in " ".join(command.argv)  # every user of the machine sees command lines


def test_the_command_is_short_whatever_the_job():
    long = job(arguments=("--neox-args", "x" * 10**6), environment={f"NAME_{i}": "y" * 100 for i in range(1000)})
    (command,) = LAUNCHER.commands(long)
    assert len(str(command)) < 500


def test_it_keeps_the_terminal_for_the_first_rank_and_is_started_with_signals_held_back():
    (command,) = LAUNCHER.commands(job())
    assert (command.interactive, command.awaits_signals) == (True, True)


def test_commands_print_as_a_shell_reads_them():
    assert str(Command(("run", "a b"), {"X": "1"})) == "X=1 run 'a b'"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"script": "no_such_script.py"}, 'the script "no_such_script.py" does not exist'),
        ({"hosts": (Host("far-away", (0,)),)}, "processes on this machine only, but the hosts are far-away"),
        ({"hosts": (Host("localhost", (0,)), Host("far-away", (0,)))}, "the hosts are localhost, far-away"),
    ],
)
def test_jobs_that_this_launcher_cannot_run(changes, message):
    with pytest.raises(NeoXError, match=message):
        LAUNCHER.check(job(**changes))


def test_a_job_that_it_can_run():
    LAUNCHER.check(job())
    assert job().world_size == 2


def test_an_agent_is_told_who_it_is_by_name_or_by_a_variable_and_where_to_look_for_the_head():
    several = job(head=HeadPlace(("10.0.0.1", "192.168.0.1"), 99))
    options = [
        parse_agent_options(agent_argv(several, **who)[3:])
        for who in ({"node": "a"}, {"node_from": "NAME"}, {"number_from": "NUMBER", "conclude": True})
    ]
    assert [(each.node, each.node_from, each.number_from, each.conclude) for each in options] == [
        ("a", None, None, False),
        (None, "NAME", None, False),
        (None, None, "NUMBER", True),
    ]
    assert {(each.addresses, each.port) for each in options} == {(("10.0.0.1", "192.168.0.1"), 99)}
