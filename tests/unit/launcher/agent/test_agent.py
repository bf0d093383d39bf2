"""A real agent and a head that is played by the test: what the agent says, and what it does when the head is no longer there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron.launcher.agent.options import REPOSITORY, TOKEN_VARIABLE
from megatron.launcher.agent.work import Work
from megatron.launcher.connection import Connection, Message

SCRIPT = """
import os, signal, sys, time
def save(number, frame):
    open(f"{sys.argv[1]}/saved", "w").write(str(number))
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGUSR2, lambda number, frame: open(f"{sys.argv[1]}/noticed", "w").write(str(number)))
open(f"{sys.argv[1]}/environment", "w").write(repr(dict(os.environ)))
open(f"{sys.argv[1]}/pid", "w").write(str(os.getpid()))
for _ in range(1200): time.sleep(0.05)
"""


class PlayedHead:
    """Listens like the head, and starts an agent that connects to it. through: the words of a program that starts it."""

    def __init__(self, folder: Path, *options: str, through: tuple[str, ...] = ()) -> None:
        self.folder = folder
        (folder / "script.py").write_text(SCRIPT)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        argv = [*through, sys.executable, "-m", "megatron.launcher.agent", "--head", f"127.0.0.1:{port}", *options]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), TOKEN_VARIABLE: "secret", "NUMBER": "7"}
        self.agent = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)
        self.link = Connection(self._listener.accept()[0])
        self.link.trusted = True
        self._messages: list[Message] = []

    def hear(self, kind: str) -> Message:
        """The next message of this kind."""
        end = time.monotonic() + 20
        while not any(message["kind"] == kind for message in self._messages):
            assert time.monotonic() < end, f"no {kind}, but {self._messages}"
            self._messages += self.link.read()
        return next(message for message in self._messages if message["kind"] == kind)

    def start(self, **changes: object) -> None:
        work = {
            "script": str(self.folder / "script.py"),
            "arguments": (str(self.folder),),
            "directory": str(self.folder),
        }
        self.link.send("start", **Work(**{**work, "grace_seconds": 20.0, **changes}).to_message())

    def wait_for(self, name: str) -> str:
        """What the rank has written."""
        end = time.monotonic() + 20
        while not ((self.folder / name).exists() and (self.folder / name).read_text()):
            assert time.monotonic() < end
            time.sleep(0.01)
        return (self.folder / name).read_text()

    def close(self) -> None:
        self.link.close()
        self._listener.close()
        self.agent.kill()
        self.agent.communicate()


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., PlayedHead]]:
    heads: list[PlayedHead] = []

    def begin(*options: str, through: tuple[str, ...] = ()) -> PlayedHead:
        heads.append(PlayedHead(tmp_path, *options, through=through))
        return heads[-1]

    yield begin
    for head in heads:
        head.close()


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_says_who_it_is_and_what_it_sees(play):
    hello = play("--number-from", "NUMBER").hear("hello")
    assert (hello["token"], hello["number"], hello["node"], hello["address"]) == ("secret", 7, None, "127.0.0.1")
    assert hello["machine"] == os.uname().nodename
    assert play("--node-from", "NUMBER").hear("hello")["node"] == "7"


def test_it_leaves_with_0_when_the_job_is_over_and_with_the_status_when_nobody_else_tells(play):
    head = play("--node", "a")
    head.link.send("exit", status=3, text="error: as it is\n")
    assert head.agent.wait(20) == 0
    assert head.agent.stderr.read() == ""
    head = play("--node", "a", "--conclude")
    head.link.send("exit", status=3, text="error: as it is\n")
    assert head.agent.wait(20) == 3
    assert head.agent.stderr.read() == "error: as it is\n"


def test_ranks_know_the_job_but_not_its_token(play):
    head = play("--node", "a")
    head.start(environment={"FORWARDED": "yes"}, job="the job", age=100.0, slots=(0,), nodes=2)
    environment = eval(head.wait_for("environment"))
    assert TOKEN_VARIABLE not in environment
    assert (environment["FORWARDED"], environment["NEOX_JOB"]) == ("yes", "the job")
    assert abs(time.time() - 100 - float(environment["NEOX_STARTED"])) < 20
    assert environment["GLOO_SOCKET_IFNAME"] == "lo", "the interface that leads to the head"


def test_a_head_that_hangs_up_lets_the_ranks_save(play):
    head = play("--node", "a")
    head.start()
    pid = head.wait_for("pid")
    head.link.close()
    assert head.wait_for("saved") == "15"
    assert head.agent.wait(20) == 0
    assert not is_running(pid)


def test_a_head_that_falls_silent_has_the_ranks_killed(play):
    head = play("--node", "a", "--node-timeout", "0.5")
    head.start()
    head.link.beat()
    pid = head.wait_for("pid")
    assert head.agent.wait(20) == 1
    assert not is_running(pid)
    assert not (head.folder / "saved").exists()


@pytest.mark.parametrize("hangs_up", [True, False])
def test_where_nobody_else_can_tell_that_the_head_is_gone_the_agent_does(play, hangs_up):
    head = play("--node", "a", "--conclude", "--node-timeout", "0.5")
    head.hear("hello")
    if hangs_up:
        head.link.close()
    assert head.agent.wait(20) == 1
    why = "has ended without a word" if hangs_up else "has not been heard for"
    assert head.agent.stderr.read().startswith(f"error: the deepy.py of the first machine (127.0.0.1) {why}")


def test_a_notice_reaches_the_ranks(play):
    head = play("--node", "a")
    head.start()
    head.wait_for("pid")
    head.link.send("notice")
    assert head.wait_for("noticed") == str(int(signal.SIGUSR2))


def test_a_signal_that_comes_before_the_start_starts_nothing(play):
    head = play("--node", "a")
    head.hear("hello")
    head.agent.send_signal(signal.SIGTERM)
    assert head.hear("signal")["number"] == signal.SIGTERM
    head.start()
    assert not head.hear("ended")["succeeded"]
    assert not (head.folder / "pid").exists()


@pytest.mark.parametrize(("change", "what"), [({"directory": "/no/such"}, "/no/such cannot be entered on "), ({"script": "no.py"}, 'the script "no.py" does not exist on ')])  # fmt: skip
def test_what_cannot_be_started_is_told(play, change, what):
    head = play("--node", "a")
    head.start(**change)
    assert head.hear("ended")["error"].startswith(what)


def test_the_store_is_opened_on_the_port_that_is_wanted_or_on_another_one_unless_that_is_fixed(play):
    head = play("--node", "a")
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        head.link.send("open_store", port=port, several=True, fixed=False)
        other = head.hear("store")["port"]
        assert other != port
        socket.create_connection(("127.0.0.1", other)).close()
        head.link.send("open_store", port=port, several=True, fixed=True)
        assert f'"master_port" is {port}, which cannot be opened on ' in head.hear("ended")["error"]
        with pytest.raises(ConnectionRefusedError):  # the one before is closed
            socket.create_connection(("127.0.0.1", other))


def test_a_head_that_is_not_there_is_told(tmp_path, monkeypatch, capsys):
    from megatron.errors import LaunchError
    from megatron.launcher.agent import agent
    from megatron.launcher.agent.options import AgentOptions

    monkeypatch.setattr(agent, "SEARCH_SECONDS", 0.2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(LaunchError, match=rf"cannot reach deepy\.py at 127\.0\.0\.1 port {port}"):
        agent.Agent(AgentOptions(("127.0.0.1",), port, node="a")).run()


def test_a_start_that_crosses_a_signal_tells_nothing_of_the_ranks_before(play):
    head = play("--node", "a")
    (head.folder / "script.py").write_text("raise SystemExit(3)")
    head.start()
    assert head.hear("ended")["failures"]
    head.agent.send_signal(signal.SIGTERM)
    head.hear("signal")
    head._messages.clear()
    head.start()
    ended = head.hear("ended")
    assert not ended["succeeded"]
    assert not ended.get("failures")


def test_only_between_machines_is_silence_an_end():
    from megatron.launcher.agent.options import agent_argv, parse_agent_options
    from megatron.launcher.base import HeadPlace, Host, Job

    def timeout(addresses: tuple[str, ...], *hosts: str) -> float:
        job = Job("a.py", (), tuple(Host(name, (0,)) for name in hosts), head=HeadPlace(addresses, 1), node_timeout=7.0)
        return parse_agent_options(agent_argv(job, node="a")[3:]).node_timeout

    assert timeout(("127.0.0.1",), "a") == float("inf"), "it was stopped (Ctrl-Z), and goes on later"
    assert timeout(("127.0.0.1",), "a", "b") == 7.0
    assert timeout(("10.0.0.1",), "a") == 7.0


@pytest.mark.parametrize(("options", "status"), [(("--ends-parent",), -signal.SIGKILL), ((), 7)])
def test_a_daemon_that_started_the_agent_ends_with_it_when_the_head_is_lost(play, options, status):
    head = play("--node", "a", "--node-timeout", "0.5", *options, through=("sh", "-c", '"$@"; exit 7', "sh"))
    assert head.agent.wait(20) == status


def test_the_store_of_one_machine_is_not_open_to_others(play):
    head = play("--node", "a")
    head.link.send("open_store", port=0, several=False, fixed=False)
    port = head.hear("store")["port"]
    socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))
