"""The local launcher and the command line of the agent."""

from __future__ import annotations

import sys

import pytest

from megatron.components import LAUNCHERS
from megatron.errors import NeoXError
from megatron.launcher.agent_options import AgentOptions, agent_command, parse_agent_options
from megatron.launcher.base import Command, Host, Job
from megatron.neox_arguments.keys.runner import RunnerArgs

LAUNCHER = LAUNCHERS.load("local")(RunnerArgs.model_construct())


def job(**changes) -> Job:
    values = {
        "script": __file__,
        "arguments": ("--neox-args", "abc="),
        "hosts": (Host("localhost", (0, 1)),),
        **changes,
    }
    return Job(**values)


def test_the_command_is_one_agent_with_all_ranks():
    (command,) = LAUNCHER.commands(job(master_port=1234, grace_seconds=30.0))
    assert command.argv[:3] == (sys.executable, "-m", "megatron.launcher.agent")
    assert parse_agent_options(command.argv[3:]) == AgentOptions(
        __file__, ("--neox-args", "abc="), ranks=2, master_port=1234, grace_seconds=30.0
    )


def test_chosen_devices_are_passed_on():
    (command,) = LAUNCHER.commands(job(hosts=(Host("localhost", (1, 3)),)))
    options = parse_agent_options(command.argv[3:])
    assert (options.ranks, options.devices) == (2, (1, 3))


def test_the_environment_of_the_job_is_in_the_command():
    (command,) = LAUNCHER.commands(job(environment={"NAME": "a value"}))
    assert "NAME='a value'" in str(command)
    assert "PYTHONPATH=" in str(command)


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


def test_agents_of_several_hosts_differ_in_their_node_rank_and_slots():
    both = job(hosts=(Host("a", (0, 1)), Host("b", (0, 1, 2))), master_addr="a")
    options = [parse_agent_options(agent_command(both, node).argv[3:]) for node in range(2)]
    assert [(option.nodes, option.node_rank, option.ranks, option.master_addr) for option in options] == [
        (2, 0, 2, "a"),
        (2, 1, 3, "a"),
    ]


def test_options_of_the_script_are_not_taken_for_options_of_the_agent():
    options = AgentOptions("train.py", ("--ranks", "7", "-x", "--", "a"), ranks=1)
    assert parse_agent_options(options.argv()) == options
